/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stand-in for libbpf's header of this name: the helpers of the sampling program as ordinary functions.
 *
 * Declared here, defined in replay.c. A helper that the program begins to use is added in both places; a map is added
 * to the list in replay.c.
 */
#pragma once

#include <stddef.h>

#undef __always_inline
#define __always_inline inline __attribute__((always_inline, unused))
#define SEC(name) __attribute__((used))
#define __uint(name, number) int (*name)[number]
#define __type(name, what) typeof(what) *name
#define __array(name, what) typeof(what) *name[]
#define barrier_var(variable) asm volatile("" : "+r"(variable))
#define barrier() asm volatile("" ::: "memory")

void *bpf_map_lookup_elem(const void *map, const void *key);
long bpf_map_update_elem(const void *map, const void *key, const void *value, u64 flags);
long bpf_probe_read_user(void *to, u32 bytes, const void *from);
long bpf_probe_read_kernel(void *to, u32 bytes, const void *from);
long bpf_get_stack(void *context, void *to, u32 bytes, u64 flags);
long bpf_ringbuf_output(const void *ring, void *from, u64 bytes, u64 flags);
long bpf_perf_event_output(void *context, const void *buffers, u64 flags, void *from, u64 bytes);
u64 bpf_ringbuf_query(const void *ring, u64 what);
long bpf_loop(u32 rounds, void *function, void *context, u64 flags);
u64 bpf_get_current_pid_tgid(void);
u64 bpf_get_current_task(void);
struct task_struct *bpf_get_current_task_btf(void);
long bpf_task_pt_regs(struct task_struct *task);
u32 bpf_get_smp_processor_id(void);
u64 bpf_ktime_get_ns(void);
long bpf_get_current_comm(void *to, u32 bytes);
