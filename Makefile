# breakwater - plain make. `make help` lists the targets.
BUILD ?= build
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
CC ?= gcc
PYTHON = /usr/bin/python3
PKGS = libevent libevent_pthreads libevent_openssl libssl libcrypto sqlite3 libzstd libpsl libconfuse jansson hiredis
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT ?= -O2 -g
HARDEN ?= -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
EXTRA ?=
CFLAGS ?= $(OPT) $(HARDEN)
LDFLAGS ?= -pie -Wl,-z,relro,-z,now
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lbloom -lm -pthread
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(WARN) $(CFLAGS) $(EXTRA) -Idetectors -Ipolicy -Idaemon \
	-I$(BUILD) $(PKG_CFLAGS) -MMD -MP -pthread

PURE = $(wildcard detectors/*.c) $(wildcard policy/*.c)
PROGRAMS = daemon/main.c daemon/breakwaterctl.c
HOUSE = $(PURE) $(filter-out $(PROGRAMS),$(wildcard daemon/*.c))
SOURCES = $(HOUSE) $(PROGRAMS) $(wildcard detectors/*.h policy/*.h daemon/*.h)
PURE_O = $(PURE:%.c=$(BUILD)/%.o)
HOUSE_O = $(HOUSE:%.c=$(BUILD)/%.o)
UNIT = $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/*_test.c))
TOOLS = $(patsubst tests/e2e/%.c,$(BUILD)/e2e/%,$(wildcard tests/e2e/*.c))
BENCH = $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
FUZZ = $(patsubst tests/fuzz/%.c,build/fuzz/fuzz/%,$(wildcard tests/fuzz/*_fuzz.c))
MANUALS = $(wildcard detectors/*.[578] policy/*.[578] daemon/*.[578])
SANITIZE = HARDEN= LDFLAGS=
ASAN = $(SANITIZE) EXTRA="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DBREAKWATER_FAILPOINTS"
TSAN = $(SANITIZE) EXTRA="-fsanitize=thread -fno-omit-frame-pointer -DBREAKWATER_FAILPOINTS"

all: $(BUILD)/breakwaterd $(BUILD)/breakwaterctl ## both programs, into build/

$(BUILD)/breakwaterd: $(BUILD)/daemon/main.o $(BUILD)/libbreakwater.a
	$(CC) $(CFLAGS) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/breakwaterctl: $(BUILD)/daemon/breakwaterctl.o $(BUILD)/libbreakwater.a
	$(CC) $(CFLAGS) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/libbreakwater.a: $(HOUSE_O)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

# The scripts that run inside Redis, as strings: without comments and margins.
LUA = $(patsubst daemon/lua/%.lua,$(BUILD)/lua/%.h,$(wildcard daemon/lua/*.lua))
$(BUILD)/daemon/store_script.o: $(LUA)
$(BUILD)/lua/%.h: daemon/lua/%.lua
	@mkdir -p $(@D)
	sed -e '/^--/d; s/^ *//; s/[\\"]/\\&/g; s/.*/"&\\n"/' $< >$@

# One program per tests/unit/NAME_test.c; build and run one with: make unit-NAME
$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libbreakwater.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests/unit $(LDFLAGS) -o $@ $< $(BUILD)/libbreakwater.a $(LIBS) -lcmocka
unit-%: $(BUILD)/unit/%_test
	$<
$(BUILD)/e2e/%: tests/e2e/%.c $(BUILD)/libbreakwater.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/libbreakwater.a $(LIBS)
$(BUILD)/bench/nullmilter: LIBS += -lmilter
$(BUILD)/bench/%: tests/bench/%.c $(BUILD)/libbreakwater.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/libbreakwater.a $(LIBS)
$(BUILD)/fuzz/%: tests/fuzz/%.c $(BUILD)/libbreakwater.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -o $@ $< $(BUILD)/libbreakwater.a $(LIBS) -fsanitize=fuzzer

unit: $(UNIT)
tools: $(TOOLS)
bench: $(BENCH)

deps: ## install what is missing (apt; sudo only when not root)
	@sh contrib/deps.sh

demo: deps ## the 2006 storm, live, on free loopback ports, without an MTA (DEMO="--help" for sizes)
	@$(MAKE) --no-print-directory -s -j2 all tools
	@$(PYTHON) tests/storm/demo.py --build $(BUILD) $(DEMO)
demo-postfix: ## the same through a private Postfix and the milter door
	@$(MAKE) --no-print-directory demo DEMO="--postfix $(DEMO)"

check: deps ## everything that must pass, under six minutes
	@$(MAKE) --no-print-directory check-built
check-built:
	@$(MAKE) --no-print-directory -s -j2 all unit tools
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/asan $(ASAN) all unit
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/failpoint EXTRA=-DBREAKWATER_FAILPOINTS all tools
	@$(PYTHON) tests/run.py \
		"script:sh tests/ladder.sh tests/ladder.txt $(SOURCES)" \
		"script:sh tests/tour.sh tests/ladder.txt README.md" \
		"script:sh tests/purity.sh $(PURE_O)" \
		"script:sh tests/options.sh" \
		"script:sh tests/sandbox.sh contrib/systemd/breakwaterd.service" \
		"script:mandoc -T lint -W warning $(MANUALS)" \
		unit:build/unit unit:build/asan/unit \
		"pytest:tests/e2e"

CHECK_SMTP = clients dot prompt proxyline smtp_proto smtp smtp_data smtp_law smtp_time smtp_tls tx
check-smtp: deps ## the suites of the SMTP door alone
	@$(MAKE) --no-print-directory -s -j2 all tools $(CHECK_SMTP:%=$(BUILD)/unit/%_test)
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/asan $(ASAN) $(CHECK_SMTP:%=build/asan/unit/%_test)
	@$(PYTHON) tests/run.py $(CHECK_SMTP:%=unit:build/unit/%_test) $(CHECK_SMTP:%=unit:build/asan/unit/%_test) \
		$(patsubst %,pytest:%,$(wildcard tests/e2e/test_smtp*.py))

CHECK_POLICY = expr fact fact_pack policy rules_shipped set lint linediff setfile versions rules guard watch alarm figures days summary ledger entries journal backtest
POLICY_UNIT = $(patsubst tests/unit/%.c,%,$(filter $(CHECK_POLICY:%=tests/unit/%_test.c),$(wildcard tests/unit/*_test.c)))
POLICY_E2E = policy guard story figures ledger undo_rule
check-policy: deps ## the suites of rules, versions and the guard alone
	@$(MAKE) --no-print-directory -s -j2 all tools $(POLICY_UNIT:%=$(BUILD)/unit/%)
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/asan $(ASAN) $(POLICY_UNIT:%=build/asan/unit/%)
	@$(PYTHON) tests/run.py $(POLICY_UNIT:%=unit:build/unit/%) $(POLICY_UNIT:%=unit:build/asan/unit/%) \
		$(patsubst %,pytest:%,$(wildcard $(POLICY_E2E:%=tests/e2e/test_%*.py)))

CHECK_REDIS = fleet fleetclock members news redis redis_cluster sharedstates
REDIS_UNIT = $(patsubst tests/unit/%.c,%,$(filter $(CHECK_REDIS:%=tests/unit/%_test.c),$(wildcard tests/unit/*_test.c)))
check-redis: deps ## the suites of the shared past alone; it starts its own private Redis servers
	@$(MAKE) --no-print-directory -s -j2 all tools $(REDIS_UNIT:%=$(BUILD)/unit/%)
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/asan $(ASAN) $(REDIS_UNIT:%=build/asan/unit/%)
	@AGREE=6000 $(PYTHON) tests/run.py $(REDIS_UNIT:%=unit:build/unit/%) $(REDIS_UNIT:%=unit:build/asan/unit/%) \
		$(patsubst %,pytest:%,$(wildcard tests/e2e/test_redis*.py tests/e2e/test_fleet*.py))

check-long: deps ## the long proofs: hundreds of crashes, without SIMD, ThreadSanitizer, fuzzing
	@REPEAT=300 AGREE=10000 $(MAKE) --no-print-directory check-built
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/plain EXTRA=-DBREAKWATER_PLAIN unit
	@$(PYTHON) tests/run.py unit:build/plain/unit
	@$(MAKE) --no-print-directory tsan
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=60

asan: ## unit and end-to-end tests under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/asan $(ASAN) all unit tools
	@BREAKWATER_BUILD=build/asan $(PYTHON) tests/run.py unit:build/asan/unit pytest:tests/e2e
tsan: ## the same under ThreadSanitizer
	@$(MAKE) --no-print-directory -s -j2 BUILD=build/tsan $(TSAN) all unit tools
	@BREAKWATER_BUILD=build/tsan $(PYTHON) tests/run.py unit:build/tsan/unit pytest:tests/e2e

FUZZ_SECONDS ?= 5
fuzz: ## every parser under libFuzzer, FUZZ_SECONDS each
	@$(MAKE) --no-print-directory -s -j2 CC=clang BUILD=build/fuzz $(SANITIZE) EXTRA="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" $(FUZZ)
	@for f in $(FUZZ); do n=$$(basename $$f); mkdir -p build/corpus/$$n; \
		echo "fuzz: $$n for $(FUZZ_SECONDS) s"; \
		$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
			-artifact_prefix=build/ build/corpus/$$n $$(test -d tests/fuzz/$$n && echo tests/fuzz/$$n) \
			>build/fuzz/$$n.log 2>&1 || { cat build/fuzz/$$n.log; exit 1; }; done

storm-report: ## every storm and ordinary mail through replay, one table (STORM="--help" for more)
	@$(MAKE) --no-print-directory -s -j2 all
	@$(PYTHON) tests/storm/report.py --build $(BUILD) $(STORM)

bench-engine: ## one thread, 4 KB text mails: parse, fingerprint, observe, judge, policy
	@$(MAKE) --no-print-directory -s -j2 all $(BUILD)/bench/engine
	@$(BUILD)/bench/engine
bench-memory: ## the memory of the past under 1.5 million copies, and under invented messages
	@$(MAKE) --no-print-directory -s -j2 all $(BUILD)/bench/memory $(BUILD)/bench/longmemory
	@$(BUILD)/bench/memory
	@$(BUILD)/bench/longmemory
bench-event: ## to make an event, to fold it, beside observing directly
	@$(MAKE) --no-print-directory -s -j2 all $(BUILD)/bench/event
	@$(BUILD)/bench/event
bench-journal: ## a row of the journal: its bytes, and the time to add it
	@$(MAKE) --no-print-directory -s -j2 all $(BUILD)/bench/journal
	@$(BUILD)/bench/journal
bench-milter: ## the milter door beside libmilter's no-reply filter, in one run
	@$(MAKE) --no-print-directory -s -j2 all bench
	@sh tests/bench/milter.sh $(BUILD)
bench-redis: ## what a past in Redis costs: memory beside unix socket, TCP, TLS, Cluster; and what Redis takes
	@$(MAKE) --no-print-directory -s -j2 all bench
	@sh tests/bench/redis.sh $(BUILD)
bench-smtp: ## the SMTP door beside haproxy and a null proxy, in one run
	@$(MAKE) --no-print-directory -s -j2 all bench
	@sh tests/bench/smtp.sh $(BUILD)

LINT = cppcheck clang clang-tidy mandoc
lint: ## warnings of clang and of gcc -O3, clang-tidy, cppcheck, manuals
	@for t in $(LINT); do command -v $$t >/dev/null || { echo "lint: needs: apt-get install $(LINT)"; exit 1; }; done
	@$(MAKE) --no-print-directory -s -j2 CC=clang BUILD=build/clang EXTRA=-Werror all unit tools bench
	@$(MAKE) --no-print-directory -s -j2 CC=gcc BUILD=build/gcc HARDEN= EXTRA="-O3 -Werror" all unit tools bench
	@cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		-Idetectors -Ipolicy -Idaemon detectors policy daemon
	@$(MAKE) --no-print-directory -s -k -j2 $(HOUSE:%.c=tidy/%) $(PROGRAMS:%.c=tidy/%)
	@mandoc -T lint -W warning $(MANUALS)
# One process a file: in a second file, clang-tidy 14 takes each va_list for uninitialized.
tidy/%: %.c
	@clang-tidy --quiet $< -- -std=gnu11 -D_GNU_SOURCE -Idetectors -Ipolicy -Idaemon -Ibuild/clang $(PKG_CFLAGS) 2>/dev/null
format: ## clang-format decides white space
	clang-format -i $(SOURCES) $(wildcard tests/*/*.[ch])

install: all ## into DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man5 \
		$(DESTDIR)$(PREFIX)/share/man/man7 $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/doc/breakwater/rules \
		$(DESTDIR)$(PREFIX)/share/doc/breakwater/redis \
		$(DESTDIR)$(SYSCONFDIR)/breakwater
	install -m 755 $(BUILD)/breakwaterd $(BUILD)/breakwaterctl $(DESTDIR)$(PREFIX)/sbin/
	install -m 644 $(filter %.5,$(MANUALS)) $(DESTDIR)$(PREFIX)/share/man/man5/
	install -m 644 $(filter %.7,$(MANUALS)) $(DESTDIR)$(PREFIX)/share/man/man7/
	install -m 644 $(filter %.8,$(MANUALS)) $(DESTDIR)$(PREFIX)/share/man/man8/
	install -m 644 README.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/breakwater/
	install -m 644 contrib/rules/*.conf $(DESTDIR)$(PREFIX)/share/doc/breakwater/rules/
	install -m 644 contrib/redis/* $(DESTDIR)$(PREFIX)/share/doc/breakwater/redis/
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/local/sbin|$(PREFIX)/sbin|' contrib/systemd/breakwaterd.service \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/breakwaterd.service
	for f in breakwater.conf policy.conf; do \
		test -e $(DESTDIR)$(SYSCONFDIR)/breakwater/$$f || \
		install -m 644 contrib/$$f $(DESTDIR)$(SYSCONFDIR)/breakwater/$$f; done

clean: ## remove build/
	rm -rf build
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1 - \2/p' Makefile | sort
.PHONY: all unit tools bench deps demo check check-built check-smtp check-policy check-redis check-long asan tsan fuzz \
	storm-report bench-engine bench-event bench-journal bench-memory bench-milter lint format install clean help \
	bench-redis bench-smtp demo-postfix
.SECONDARY:
-include $(wildcard $(BUILD)/*/*.d)
