# Every target is a script of the same name.
.PHONY: setup check test demo bench clean

demo setup bench:
	scripts/$@

test:
	scripts/check
	scripts/test

check:
	scripts/check

clean:
	rm -rf .venv .cache demo-out
