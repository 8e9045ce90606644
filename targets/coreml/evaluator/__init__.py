"""An evaluator of saved ML Programs in numpy, written from MIL's documentation; it shares nothing with the converter."""
