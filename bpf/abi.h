/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kernel side and user space share: limits, layouts, reasons, counters.
 *
 * The only header both sides read. The build script turns every `#define ABI_NAME number` and both lists below into
 * Rust; `src/agent/bpf/abi.rs` mirrors the structs and asserts the sizes given here. No kernel type may appear.
 */
#pragma once

/* Raised with every change of a layout below; a record of another version is refused by the reader. */
#define ABI_VERSION 2

/* ---- limits ---- */

/* Kernel addresses of one sample: the default of sysctl kernel.perf_event_max_stack. */
#define ABI_MAX_KERNEL_FRAMES 127
/* User frames kept at the leaf end of a stack, and (as a ring) at its root end. Powers of two. */
#define ABI_INNER_FRAMES 256
#define ABI_OUTER_FRAMES 256
/* User frames kept of one sample: ABI_INNER_FRAMES + ABI_OUTER_FRAMES. */
#define ABI_MAX_USER_FRAMES 512
/* Frames walked at most: at 30 ns each 120 us, the longest a tick may take. */
#define ABI_MAX_STEPS 4096
/* No code lies below: a smaller return address is none. */
#define ABI_LOWEST_CODE 4096
/* x86-64 with five levels and arm64 with 52 bits stay below; above are flags and the kernel. */
#define ABI_USER_BITS 56
/* Largest frame that a frame pointer is believed to span. */
#define ABI_MAX_APPROXIMATE_FRAME 131072
/* Pages of user stack in a copy: where most young processes' stacks end; start-up code of libc has frames of 1 KiB. */
#define ABI_STACK_COPY_PAGES 4
/* Words behind the header: a power of two not below ABI_MAX_KERNEL_FRAMES + ABI_MAX_USER_FRAMES. */
#define ABI_FRAME_WORDS 1024

/* Pool: pages of 4 KiB in parts of 4 MiB; a page id is part * ABI_PART_PAGES + page, 0 is no page. */
#define ABI_PAGE_WORDS 1024
#define ABI_PART_PAGES 1024
/* Parts the outer map has room for: 1 GiB. How many there are is the pool's budget. */
#define ABI_MAX_PARTS 256
/* Distinct rules of the whole machine: as many as a row can name. */
#define ABI_MAX_RULES 16384

/*
 * Leaf: word g, from ABI_LEAF_FIRST_GROUP on, is the offset of the first row of group g, words 16g.. are its rows: in the
 * upper 18 bits the distance from the group's first row, below it the rule. Words before the first group are 0, padding is
 * all ones. Groups of several tables may share a leaf, in ranges of offsets that are far apart.
 */
#define ABI_LEAF_FIRST_GROUP 4
#define ABI_LEAF_GROUPS 64
#define ABI_LEAF_GROUP_ROWS 16
#define ABI_ROW_RULE_BITS 14
/* Distance beyond which all addresses are alike; a row's own is smaller by more than ABI_MAX_PASSED. */
#define ABI_GROUP_SPAN 0x3fffe
/* Keys of an inner page: words 1..511, the child of key j is word 512 + j. */
#define ABI_INNER_KEYS 511
/* Mappings of a mapping page: entries 1..127. */
#define ABI_PAGE_MAPPINGS 127

/* Root of a mapping without a table. Else: page id in 24 bits, inner levels (0 to 2) in the top 8. */
#define ABI_NO_TABLE 0xff000000
/* The same while its table is being made. */
#define ABI_TABLE_PENDING 0xfe000000

/* ---- flags of a user frame ---- */

#define ABI_RETURN_ADDRESS_BIT 63
#define ABI_APPROXIMATE_BIT 62

/* ---- why a walk ended: X(C name, number, variant of agent::bpf::EndReason) ---- */

#define ABI_END_REASONS(X) \
	X(COMPLETE, 1, Complete) \
	X(KERNEL_THREAD, 2, KernelThread) \
	X(UNKNOWN_PROCESS, 3, UnknownProcess) \
	X(NO_MAPPING, 4, NoMapping) \
	X(NO_TABLE, 5, NoTable) \
	X(NO_RULE, 6, NoRule) \
	X(UNREADABLE_STACK, 7, UnreadableStack) \
	X(NOT_GROWING, 8, NotGrowing) \
	X(BAD_RETURN_ADDRESS, 9, BadReturnAddress) \
	X(COMPAT, 10, Compat) \
	X(TABLE_MOVED, 11, TableMoved) \
	X(TOO_DEEP, 12, TooDeep) \
	X(TABLE_PENDING, 13, TablePending) \
	X(NO_MEMORY, 14, NoMemory) \
	X(USER_WORKER, 15, UserWorker)

/* ---- counters: X(C name, class, public name). Sum of class `whole` = sum of class `part`, exactly. ---- */

#define ABI_COUNTERS(X) \
	X(TICKS, whole, "ticks") \
	X(STORED, part, "stored") \
	X(IDLE, part, "idle") \
	X(FILTERED, part, "filtered") \
	X(RING_FULL, part, "dropped.ring_full") \
	X(NO_RECORD, part, "dropped.no_record") \
	X(USER_FRAMES, detail, "user_frames") \
	X(APPROXIMATE_FRAMES, detail, "approximate_frames") \
	X(CACHE_MISSES, detail, "cache_misses") \
	X(MAPPING_MISSES, detail, "mapping_misses") \
	X(STACK_READS, detail, "stack_reads") \
	X(TRUNCATED, detail, "truncated") \
	X(KERNEL_NS, detail, "kernel_ns") \
	X(PARENT_ROWS, detail, "parent_rows") \
	X(STACK_COPIES, detail, "stack_copies") \
	X(STACK_COPIES_REFUSED, detail, "stack_copies_refused")

/* ---- rules ---- */

/* Kinds of the canonical frame address. */
#define ABI_CFA_UNKNOWN 0
#define ABI_CFA_SP 1
#define ABI_CFA_FP 2
#define ABI_CFA_PLT 3
#define ABI_CFA_DEREF_SP 4
#define ABI_CFA_DEREF_FP 5
#define ABI_CFA_REGISTER 6
#define ABI_CFA_FRAME_POINTER 7
#define ABI_CFA_SIGNAL 8
#define ABI_CFA_STOP 9
/*
 * Runs of pushes or pops under one rule: like ABI_CFA_SP, and 8 more (or less) for each bit d of `ra_offset` with d up to
 * the number of bytes passed since the row's address. The return address lies at CFA - 8. `fp` holds from `slot` bytes on;
 * before, the register is unchanged.
 */
#define ABI_CFA_PUSHES 10
#define ABI_CFA_POPS 11
/*
 * Go's runtime on the system stack, where `morestack` left nothing that leads back: registers of the goroutine it works for
 * lie in that goroutine's own record. g is `cfa_offset` bytes from the thread pointer (x86-64) or in the register `slot` of
 * the sample (arm64). Halves of `fp_offset`, lower first: of m in g, of the goroutine in m. Of `ra_offset`: in the goroutine's
 * record of its stack pointer, which its program counter follows, and of its link register, which its frame pointer follows.
 */
#define ABI_CFA_GOROUTINE 12
/* Most bytes passed that are told apart. */
#define ABI_MAX_PASSED 31

/* Where the caller's frame pointer is. */
#define ABI_FP_UNCHANGED 0
#define ABI_FP_AT_CFA 1
#define ABI_FP_AT_FP 2
#define ABI_FP_UNKNOWN 3

/* Where the return address is; arm64's link register is a register like others. */
#define ABI_RA_AT_CFA 0
#define ABI_RA_REGISTER 1
/* Added to either: the rule was read off the code, for nothing describes it; the caller it leads to is approximate. */
#define ABI_RA_GUESS 0x80

/* One rule, 16 bytes. Rule 0 is ABI_CFA_UNKNOWN. */
struct abi_rule {
	unsigned char cfa;
	unsigned char fp;
	unsigned char ra;
	/* Slot of the register in the saved user registers, for ABI_CFA_REGISTER and ABI_RA_REGISTER; runs: see above. */
	unsigned char slot;
	/* Added to the base; PLT: threshold. */
	int cfa_offset;
	int fp_offset;
	/* ABI_RA_AT_CFA: added to the CFA. Deref kinds: added after the read; their return address lies at CFA - 8. Runs: bits. */
	int ra_offset;
};
#define ABI_RULE_BYTES 16

/* ---- processes ---- */

/*
 * Value of the process table. `stamp` is unique for each version of each process; its pages carry it too.
 *
 * `program` is written by the kernel side, at the first sample with this row: a mark of the program that runs. When the
 * process runs another one (it called exec, or its number was used again), the row no longer speaks of it.
 */
struct abi_process {
	unsigned int stamp;
	/* First mapping page, or the page above the mapping pages. */
	unsigned int page;
	/* 0: `page` holds mappings, 1: it holds mapping pages. */
	unsigned int levels;
	unsigned int program;
};
#define ABI_PROCESS_BYTES 16

/*
 * Sorted mappings of one process, in a page of the pool. Entry 0 of `start` holds the stamp; unused starts hold 2^63 - 1,
 * for the search compares by sign. In a page of pages `start` is the first address below a child and `root` its page.
 */
struct abi_mapping_page {
	unsigned long long start[128];
	/* Runtime address minus offset in the table, wrapping. */
	unsigned long long bias[128];
	unsigned int root[128];
	/* Length in units of 4 KiB. */
	unsigned int pages[128];
	unsigned int unused[256];
};
#define ABI_MAPPING_PAGE_BYTES 4096

/* ---- settings, frozen at load ---- */

struct abi_settings {
	/* Sample only this process; 0 = all. */
	unsigned int only_pid;
	/* Bytes from the lowest address of a kernel stack to its top (legacy object). */
	unsigned int kernel_stack_bytes;
	/* arm64: bits of a code pointer that hold its signature. */
	unsigned long long pac_mask;
	/* `events` is a perf buffer of each CPU, not a ring. */
	unsigned int per_cpu_buffers;
	unsigned int reserved;
};
#define ABI_SETTINGS_BYTES 24

/* ---- filter: who is sampled ---- */

/* Processes, names and cgroups that can be chosen together. */
#define ABI_MAX_CHOSEN 8192
/* Levels of cgroups that are looked at, from the process upwards. Kubernetes under systemd has 5. */
#define ABI_CGROUP_LEVELS 16

/* Hierarchy in which cgroups are looked for: of version 2, or that of a controller of version 1. */
#define ABI_HIERARCHY_NONE 0
#define ABI_HIERARCHY_UNIFIED 1
#define ABI_HIERARCHY_MEMORY 2
#define ABI_HIERARCHY_CPU 3
#define ABI_HIERARCHY_PIDS 4

/* Last byte of a choice: what it is. A name is NUL-terminated in 16 bytes, so its last byte is zero. */
#define ABI_CHOICE_NAME 0
#define ABI_CHOICE_PROCESS 1
#define ABI_CHOICE_CGROUP 2
#define ABI_CHOICE_KIND_SHIFT 56

/* One choice: number of a process or of a cgroup in `low` and its kind in `high`, or the name of a process in both. */
struct abi_choice {
	unsigned long long low;
	unsigned long long high;
};
#define ABI_CHOICE_BYTES 16

/* Frozen at load. */
struct abi_filter {
	/* Processes that began less long ago are not sampled; 0 = all. */
	unsigned long long min_age_ns;
	/* Sample only what is chosen. */
	unsigned int choose;
	unsigned int hierarchy;
	/* Sample idle CPUs too. */
	unsigned int idle;
	unsigned int reserved;
};
#define ABI_FILTER_BYTES 24

/* ---- one sample ---- */

/*
 * Header, followed by `kernel_frames` kernel addresses and `user_frames` user addresses, leaf first. When the stack is
 * deeper than ABI_MAX_USER_FRAMES, `skipped` says by how many frames, and those from ABI_INNER_FRAMES on are a ring
 * whose first (leafmost) one is number ABI_INNER_FRAMES + `ring_start`.
 */
struct abi_trace_event {
	unsigned short version;
	unsigned short end;
	unsigned int cpu;
	unsigned int pid;
	unsigned int tid;
	/* CLOCK_MONOTONIC. */
	unsigned long long time_ns;
	char comm[16];
	unsigned short kernel_frames;
	unsigned short user_frames;
	unsigned short ring_start;
	unsigned short flags;
	unsigned int skipped;
	unsigned int reserved2;
};
#define ABI_TRACE_EVENT_BYTES 56

/* `end` of a record that is no sample but a stack copy. */
#define ABI_STACK_COPY 0xffff
/* Set in `flags` of the sample that follows a stack copy. */
#define ABI_HAS_STACK_COPY 1

/*
 * Registers and stack of a sample that could not be walked because user space had not told enough: it can be walked there
 * later. Comes right before its sample, on the same CPU, with the same time. Followed by `stack_bytes` from `stack_start`
 * on, which is the start of the page that the stack pointer points into.
 */
struct abi_stack_copy {
	unsigned short version;
	unsigned short kind;
	unsigned int cpu;
	unsigned long long time_ns;
	unsigned long long stack_start;
	unsigned int stack_bytes;
	/* The first address follows a call. */
	unsigned int is_return;
	/* x86-64: struct user_regs of core.h; arm64: x0 to x30, sp, pc, pstate. */
	unsigned long long reg[36];
};
#define ABI_STACK_COPY_BYTES 320

#define ABI_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)
ABI_ASSERT_SIZE(abi_rule, ABI_RULE_BYTES);
ABI_ASSERT_SIZE(abi_process, ABI_PROCESS_BYTES);
ABI_ASSERT_SIZE(abi_mapping_page, ABI_MAPPING_PAGE_BYTES);
ABI_ASSERT_SIZE(abi_settings, ABI_SETTINGS_BYTES);
ABI_ASSERT_SIZE(abi_choice, ABI_CHOICE_BYTES);
ABI_ASSERT_SIZE(abi_filter, ABI_FILTER_BYTES);
ABI_ASSERT_SIZE(abi_trace_event, ABI_TRACE_EVENT_BYTES);
ABI_ASSERT_SIZE(abi_stack_copy, ABI_STACK_COPY_BYTES);
