# Every target is a script of the same name; `test` is the scripts check and test, side by side.
.PHONY: setup check test tests demo bench clean

check demo setup bench:
	scripts/$@

test: setup
	+@$(MAKE) --no-print-directory --jobs=2 check tests

tests:
	scripts/test

clean:
	rm -rf .venv .cache demo-out
