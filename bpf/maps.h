/* SPDX-License-Identifier: GPL-2.0 */
/* Maps, the per-CPU record, and one accessor per map. Sizes that depend on settings are set before loading. */
#pragma once

#include "abi.h"

/* Return address to rule, from earlier samples of this CPU. Direct-mapped; valid while the process keeps its stamp. */
struct cached_rule {
	u64 pc;
	u32 stamp;
	/* Rule and, from PASSED_SHIFT on, bytes passed since its row; or FAILED | reason. */
	u32 rule;
};
/* 16 KiB: misses were 0.02 % of the frames of one busy process and about 20 % under a mixed load. */
#define CACHED_RULES 1024
#define FAILED 0x10000
#define PASSED_SHIFT 17

/* Mapping found earlier on this CPU, same validity. */
struct cached_mapping {
	u64 start;
	u64 len;
	u64 bias;
	u32 root;
	u32 stamp;
};
#define CACHED_MAPPINGS 8

/* Words of user stack read at once: one read of 1 KiB costs 91 ns, one of 8 bytes 59 ns. */
#define WINDOW_WORDS 128

/* State of one walk. Everything up to the last frame goes to user space as it is. */
struct record {
	struct abi_trace_event event;
	u64 frames[ABI_FRAME_WORDS];

	/* Current frame. */
	u64 pc;
	u64 sp;
	u64 fp;
	/* `pc` follows a call. */
	u32 is_return;
	/* Registers other than pc, sp and fp are known: sampled frame, or the one a signal interrupted. */
	u32 is_leaf;
	/* The frame above such a one: what it called may have left its registers alone. */
	u32 is_second;
	/* How `pc` was found: 0, or why a frame pointer had to be followed. */
	u32 approximate;
	/* Frames found. */
	u32 steps;
	/* Changes to a lower stack. */
	u32 switches;

	/* Of the process; stamp 0 = unknown. */
	u32 stamp;
	u32 mapping_page;
	u32 mapping_levels;

	/* Stack window. */
	u32 window_words;
	u64 window_start;

	u32 approximate_frames;
	u32 cache_misses;
	u32 mapping_misses;
	u32 stack_reads;

	union {
		struct user_regs regs;
		u64 reg[64];
	};
	u64 window[WINDOW_WORDS];
	struct cached_mapping mappings[CACHED_MAPPINGS];
	struct cached_rule rules[CACHED_RULES];
};
/* Largest value of a per-CPU array. */
_Static_assert(sizeof(struct record) <= 32768, "record");

#define X(name, class, text) COUNTER_##name,
enum { ABI_COUNTERS(X) COUNTER_COUNT };
#undef X

#define X(name, number, variant) END_##name = number,
enum { END_NONE = 0, ABI_END_REASONS(X) };
#undef X

/* A stack copy in the making. */
struct stack_copy {
	struct abi_stack_copy head;
	u8 page[ABI_STACK_COPY_PAGES][4096];
};
_Static_assert(sizeof(struct stack_copy) <= 32768, "stack_copy");

struct counters {
	u64 value[COUNTER_COUNT];
};

struct page {
	u32 word[ABI_PAGE_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct record);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stack_copy);
} stack_copies SEC(".maps");

struct part {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ABI_PART_PAGES);
	__uint(map_flags, BPF_F_MMAPABLE);
	/* Sizes, not types: clang describes no type that only an inner map mentions. */
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(struct page));
};

/* Pool of table and mapping pages. Parts are added by user space and never taken away. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, ABI_MAX_PARTS);
	__type(key, u32);
	__array(values, struct part);
} parts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ABI_MAX_RULES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct abi_rule);
} rules SEC(".maps");

/* Preallocated: before 6.1 perf_event programs may use no other hash. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u32);
	__type(value, struct abi_process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} events SEC(".maps");

const volatile struct abi_settings settings SEC(".rodata.settings");

static __always_inline struct record *get_record(void)
{
	u32 key = 0;
	return bpf_map_lookup_elem(&records, &key);
}

static __always_inline struct counters *get_counters(void)
{
	u32 key = 0;
	return bpf_map_lookup_elem(&counters, &key);
}

static __always_inline struct stack_copy *get_stack_copy(void)
{
	u32 key = 0;
	return bpf_map_lookup_elem(&stack_copies, &key);
}

static __always_inline struct abi_process *get_process(u32 pid)
{
	return bpf_map_lookup_elem(&processes, &pid);
}

static __always_inline struct abi_rule *get_rule(u32 id)
{
	return bpf_map_lookup_elem(&rules, &id);
}

static __always_inline void *get_page(u32 id)
{
	u32 part = id / ABI_PART_PAGES, page = id % ABI_PART_PAGES;
	void *pages = bpf_map_lookup_elem(&parts, &part);
	return pages ? bpf_map_lookup_elem(pages, &page) : 0;
}
