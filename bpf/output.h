/* SPDX-License-Identifier: GPL-2.0 */
/* The way to user space: one ring for all CPUs, or where the kernel has none (before 5.8) a perf buffer of each CPU. The
 * choice is frozen at load, so the verifier walks one way only and the other may use what the kernel does not know. */
#pragma once

#include "maps.h"

/* Sends a record. Not 0: there was no room. Nobody is woken: that costs more than a walk, and the reader comes by timer. */
static __always_inline long send_record(struct perf_context *context, void *record, u64 bytes)
{
	if (settings.per_cpu_buffers)
		return bpf_perf_event_output(context, &events, BPF_F_CURRENT_CPU, record, bytes);
	return bpf_ringbuf_output(&events, record, bytes, BPF_RB_NO_WAKEUP);
}

/* Whether the reader is so far behind that only samples are sent. A perf buffer cannot be asked; it refuses when it is full. */
static __always_inline int is_nearly_full(void)
{
	if (settings.per_cpu_buffers)
		return 0;
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 4 * 3;
}
