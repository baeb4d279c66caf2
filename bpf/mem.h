/* SPDX-License-Identifier: GPL-2.0 */
/* Reading the stack of the sampled thread. A failed read is ordinary: the page may not be resident. */
#pragma once

#include "maps.h"

static __always_inline long read_user(void *to, u32 bytes, u64 address)
{
	return bpf_probe_read_user(to, bytes, (const void *)address);
}

/*
 * One word through the window: a read of up to 1 KiB that serves several frames. It is cut at the end of the page and
 * so fails only where reading the word alone would fail.
 */
static __always_inline long read_word(struct record *r, u64 address, u64 *value)
{
	u64 index = (address - r->window_start) >> 3;

	if (address & 7) {
		r->stack_reads++;
		return read_user(value, sizeof(*value), address);
	}
	if (index >= r->window_words) {
		u64 bytes = 4096 - (address & 4095);

		if (bytes > sizeof(r->window))
			bytes = sizeof(r->window);
		r->stack_reads++;
		r->window_words = 0;
		if (read_user(r->window, bytes, address))
			return -1;
		r->window_start = address;
		r->window_words = bytes >> 3;
		index = 0;
	}
	barrier_var(index);
	*value = r->window[index & (WINDOW_WORDS - 1)];
	return 0;
}
