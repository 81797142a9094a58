# breakwater - plain make. `make help` lists the targets.
BUILD ?= build
PREFIX ?= /usr/local
CC ?= gcc
PKGS = libevent libevent_pthreads libcrypto sqlite3 libzstd libpsl libconfuse jansson
WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT ?= -O2 -g
HARDEN ?= -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
EXTRA ?=
CFLAGS ?= $(OPT) $(HARDEN)
ALL_CFLAGS = -std=gnu11 $(WARN) $(CFLAGS) $(EXTRA) -Idetectors -Ipolicy -Idaemon $(shell pkg-config --cflags $(PKGS)) -MMD -MP -pthread
LDFLAGS ?= -pie -Wl,-z,relro,-z,now
LIBS = $(shell pkg-config --libs $(PKGS)) -lbloom -lm -pthread

PURE = $(wildcard detectors/*.c) $(wildcard policy/*.c)
MAINS = daemon/main.c daemon/breakwaterctl.c
TOOLS = $(filter-out $(MAINS),$(wildcard daemon/*.c))
PURE_O = $(PURE:%.c=$(BUILD)/%.o)
LIB_O = $(PURE_O) $(TOOLS:%.c=$(BUILD)/%.o)
UNIT = $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/*_test.c))

all: $(BUILD)/breakwaterd $(BUILD)/breakwaterctl

$(BUILD)/breakwaterd: $(BUILD)/daemon/main.o $(BUILD)/libbreakwater.a
	$(CC) $(CFLAGS) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/breakwaterctl: $(BUILD)/daemon/breakwaterctl.o $(BUILD)/libbreakwater.a
	$(CC) $(CFLAGS) $(EXTRA) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/libbreakwater.a: $(LIB_O)
	rm -f $@
	ar rcs $@ $^
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

# One program per tests/unit/NAME_test.c; run one with: make unit-NAME
$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libbreakwater.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests/unit $(LDFLAGS) -o $@ $< $(BUILD)/libbreakwater.a $(LIBS) -lcmocka
unit-%: $(BUILD)/unit/%_test
	$<

clean:
	rm -rf build
.PHONY: all clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
