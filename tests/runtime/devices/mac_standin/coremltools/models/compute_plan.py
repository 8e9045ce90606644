"""A plan of two operations: one on the Neural Engine, one on the CPU."""

import types

_WEIGHTS = {"conv": 0.75, "relu": 0.25}


class MLNeuralEngineComputeDevice: ...


class MLCPUComputeDevice: ...


class MLComputePlan:
    @classmethod
    def load_from_path(cls, path, units):
        assert path.endswith(".mlpackagec") and units.name == "ALL"
        return cls()

    @property
    def model_structure(self):
        operations = [
            types.SimpleNamespace(operator_name=name, outputs=[types.SimpleNamespace(name=f"{name}_0")])
            for name in ("const", *_WEIGHTS)
        ]
        main = types.SimpleNamespace(block=types.SimpleNamespace(operations=operations))
        return types.SimpleNamespace(program=types.SimpleNamespace(functions={"main": main}))

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        name = operation.operator_name
        return types.SimpleNamespace(weight=_WEIGHTS[name]) if name in _WEIGHTS else None

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        device = {"conv": MLNeuralEngineComputeDevice, "relu": MLCPUComputeDevice}.get(operation.operator_name)
        return types.SimpleNamespace(preferred_compute_device=device()) if device else None
