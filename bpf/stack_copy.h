/* SPDX-License-Identifier: GPL-2.0 */
/* Registers and stack for user space to walk later, where it had not told enough for a walk here. */
#pragma once

#include "maps.h"
#include "mem.h"
#include "output.h"
#include "regs.h"

/* Reasons that user space can mend when it has caught up with the process. */
static __always_inline int is_for_later(u32 end)
{
	return end == END_UNKNOWN_PROCESS || end == END_NO_MAPPING || end == END_TABLE_PENDING ||
	       end == END_TABLE_MOVED;
}

/* Sends the copy that belongs to the record's sample. The walk has used the registers, so they are read again. */
static __always_inline void send_stack_copy(struct record *r, struct perf_context *context, struct counters *count)
{
	struct stack_copy *copy = get_stack_copy();
	u32 pages = 0;
	u64 start;

	/* Samples come first: copies stop when the reader is far behind. */
	if (!copy || is_nearly_full()) {
		count->value[COUNTER_STACK_COPIES_REFUSED]++;
		return;
	}
	read_user_regs(r, context);
	start = r->sp & ~4095ULL;
#pragma clang loop unroll(full)
	for (int i = 0; i < ABI_STACK_COPY_PAGES; i++) {
		if (pages == (u32)i && !read_user(copy->page[i], 4096, start + i * 4096))
			pages = i + 1;
	}
	if (pages == 0) {
		/* In the middle of exec or behind the end: the stack pointer belongs to a memory that is no more. */
		if (r->event.end == END_UNKNOWN_PROCESS)
			r->event.end = END_NO_MEMORY;
		return;
	}
	copy->head.version = ABI_VERSION;
	copy->head.kind = ABI_STACK_COPY;
	copy->head.cpu = r->event.cpu;
	copy->head.time_ns = r->event.time_ns;
	copy->head.stack_start = start;
	copy->head.stack_bytes = pages * 4096;
	copy->head.is_return = r->is_return;
	__builtin_memcpy(copy->head.reg, &r->regs, sizeof(r->regs));
	barrier_var(pages);
	if (pages > ABI_STACK_COPY_PAGES)
		return;
	if (send_record(context, copy, sizeof(copy->head) + pages * 4096)) {
		count->value[COUNTER_STACK_COPIES_REFUSED]++;
		return;
	}
	count->value[COUNTER_STACK_COPIES]++;
	r->event.flags = ABI_HAS_STACK_COPY;
}
