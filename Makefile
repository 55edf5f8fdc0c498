PYTHON ?= python3
DEMO ?= demo
DETECTOR ?=
IDENCTL := .venv/bin/idenctl
FACES := $(DEMO)/faces
STUDY := studies/oulu_idrate.yaml
FAULTS := .venv/bin/python -m pytest -m chaos --numprocesses=2 --dist=worksteal tests/chaos
export IDENCTL_STORE = $(DEMO)/runs

# Where the five points of a face come from: a YuNet file, or the true points of the drawn pictures.
points = $(if $(DETECTOR),--detector $(DETECTOR),--landmarks $(FACES)/$(1)/landmarks.csv)

.PHONY: demo manual test debian test-slow test-cluster chaos chaos-short bench bench-study audit lint clean

demo: .venv/ready  ## draw faces, prepare them, train the trunks, run Fig. 3 in small, report
	$(IDENCTL) data synth oulu-casia --out $(FACES)/oulu-casia --sheet $(DEMO)/faces.png
	$(IDENCTL) data synth ferplus --out $(FACES)/ferplus
	$(IDENCTL) data synth casia-webface --out $(FACES)/casia-webface
	$(IDENCTL) data prepare oulu-casia --root $(FACES)/oulu-casia $(call points,oulu-casia)
	$(IDENCTL) data prepare ferplus --root $(FACES)/ferplus
	$(IDENCTL) data prepare casia-webface --root $(FACES)/casia-webface $(call points,casia-webface)
	$(IDENCTL) study run $(STUDY) --profile quick
	$(IDENCTL) report oulu_idrate --format markdown --out $(DEMO)/report.md
	$(IDENCTL) report oulu_idrate

manual: .venv/ready  ## the manual as a site, in build/manual; a warning is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

test: lint  ## the test-suite, in two processes
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile

test-slow: .venv/ready  ## the studies whose answer is known, minutes
	.venv/bin/python -m pytest -m slow

test-cluster: .venv/ready  ## a cluster of two hosts for real, each a set of namespaces of this machine, minutes; as root
	.venv/bin/python -m pytest -m cluster

chaos: .venv/ready  ## every kind of fault many times, and the same rows after each, about twenty minutes; CHAOS_SEED=N
	$(FAULTS)

chaos-short: .venv/ready  ## the same kinds a few times each, about six minutes
	CHAOS=short $(FAULTS)

debian:  ## what tests start of their own, a browser, LaTeX, PostgreSQL, tmux and hosts with sshd, from Debian; as root
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
		chromium fonts-dejavu-core iproute2 openssh-client openssh-server poppler-utils postgresql rsync \
		texlive-latex-recommended tmux

bench: .venv/ready  ## speed beside what else one could run, about a quarter of an hour
	.venv/bin/python -m benchmarks
	.venv/bin/python -m benchmarks.plot

bench-study: .venv/ready  ## whole studies of Fig. 3's pack at two depths, longer
	.venv/bin/python -m benchmarks.studies

# pip-audit asks a database on the internet; where that cannot be reached it says so and fails, and nothing else asks it.
audit: .venv/ready  ## known vulnerabilities of the tested set
	.venv/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt \
	    || { echo "not every package is known to be sound: see above whether it is vulnerable or could not be asked for"; exit 1; }

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## remove the environment; the demo's results stay
	rm -rf .venv
