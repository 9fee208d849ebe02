# Allotment: an immutable server OS for small organisations, and the builder that makes its images.
#
# What it needs: Linux, Go 1.26 or newer, git, and either root or unprivileged user namespaces. Everything else (QEMU, GRUB,
# file system tools, Debian's packages) is fetched by hash into the cache when it is first needed.
#
#   make run          build profiles/garden-club.toml and boot it under QEMU, UEFI with Secure Boot, until its page answers
#                     RUN_ARGS="--firmware bios|uefi|uefi-secure --arch amd64|arm64 --memory MIB --until-ready"
#   make build        build the images of PROFILE for ARCH into out/
#   make test         all that must hold for every change: vet, staticcheck, known vulnerabilities, unit, host and VM tests
#   make test-host, make test-machines  the two halves of that: what runs on the host, and what boots machines
#   make test-full    the same with the long matrix of VM tests
#   make demo-update  build three releases, boot the first, see it update to the second and undo the third, and print the letters;
#                     DEMO=uefi, bios or arm64 for one of them alone
#   make demo-club    a club's first day in a browser that looks like an iPad: claim, wizard, three people, one identity for all, a backup
#                     and its restore on a second machine; pictures of every screen go to docs/screens/demo
#   make screens      look at every page of the portal in a browser, and keep its picture in docs/screens
#   make lint         only the static part of that, with the table of code budgets
#   make bench        measure, beside a Debian 13 with systemd that serves the same page; writes docs/benchmarks.md
#   make bench-modules  measure what modules use together; writes docs/modules/measured.md
#   make bench-sandbox  measure HTTP, LDAP and XMPP through the sandbox, beside the same programs on a plain Debian 13; as root;
#                     writes docs/benchmarks-sandbox.md
#   make bench-portal log 1,000 times in to the portal by the gateway, and tell their memory; as root; see docs/benchmarks-portal.md
#   make bench-fleet  compute what a fleet of devices costs its web server; writes docs/benchmarks-fleet.md
#   make bench-update  measure what an update from Debian's point release to its security updates costs, beside OSTree, casync,
#                     RAUC and apt; writes docs/benchmarks-update.md
#   make repro        build twice, in every way differently, and compare every output byte for byte
#   make repro-twin   the same with a planted difference, which must be found
#   make clean-cache  remove what was fetched and built: the cache, out/ and bin/ (not keys/)
#
# Variables: PROFILE (garden-club), ARCH (amd64), KEYS (keys), ALLOT_CACHE (the cache directory; default: allotment in the
# user's cache directory), TEST_ARGS (more arguments for go test).

PROFILE   ?= garden-club
ARCH      ?= amd64
KEYS      ?= keys
RUN_ARGS  ?=
TEST_ARGS ?=
DEMO      ?=

# Our own programs never need a C compiler, and a clone inside a container often belongs to somebody else than git expects.
export CGO_ENABLED = 0
export GOFLAGS    := $(GOFLAGS) -buildvcs=false

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help run build test test-host test-machines test-full demo-update demo-club screens lint vet staticcheck vulnerabilities bench bench-modules bench-sandbox bench-portal bench-fleet bench-update repro repro-twin clean-cache

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

run: $(KEYS)
	go run ./cmd/allot run $(PROFILE) --keys $(KEYS) $(RUN_ARGS)

build: $(KEYS)
	go run ./cmd/allot build $(PROFILE) --arch $(ARCH) --keys $(KEYS) --out out

$(KEYS):
	go run ./cmd/allot key new $(KEYS)

test: lint test-host test-machines

test-host:
	go test -p 2 -timeout 30m $(TEST_ARGS) $$(go list ./... | grep -v '/qemu-tests')

# VM tests come by themselves and one after another, so that nothing else takes the processor from a guest's clock.
test-machines:
	go test -p 1 -timeout 75m $(TEST_ARGS) ./qemu-tests/...

test-full:
	ALLOT_FULL=1 $(MAKE) test TEST_ARGS="-timeout 6h $(TEST_ARGS)"

demo-update:
	ALLOT_FULL=1 go test -timeout 3h -count 1 -run '^TestDemoUpdate$$/$(DEMO)' -v ./qemu-tests

demo-club:
	ALLOT_FULL=1 go test -timeout 2h -count 1 -run '^TestDemoClub$$' -v ./qemu-tests

screens:
	go test -timeout 1h -count 1 ./qemu-tests/pages -args -screens "$(CURDIR)/docs/screens"

lint: vet staticcheck vulnerabilities
	go test -run '^TestBudgets$$' -v ./internal/house

vet:
	go vet ./...

staticcheck:
	go run $(STATICCHECK) ./...

vulnerabilities:
	hack/vulnerabilities

bench: $(KEYS)
	go run ./bench --keys $(KEYS) --write docs/benchmarks.md

bench-modules: $(KEYS)
	go run ./bench/modules --keys $(KEYS) --write docs/modules/measured.md

bench-sandbox: $(KEYS)
	go run ./bench/throughput --keys $(KEYS) --write docs/benchmarks-sandbox.md

bench-portal:
	ALLOT_FULL=1 go test ./bench/portal -count=1 -v

bench-fleet:
	go run ./bench/fleet --write docs/benchmarks-fleet.md

bench-update: $(KEYS)
	go run ./bench/update --keys $(KEYS) --write docs/benchmarks-update.md

repro:
	hack/repro $(PROFILE) $(ARCH)

repro-twin:
	hack/repro --twin $(PROFILE) $(ARCH)

clean-cache:
	cache="$${ALLOT_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/allotment}"; \
	if [ -d "$$cache" ]; then chmod -R u+rwX "$$cache" && rm -rf "$$cache"; fi
	rm -rf out bin
