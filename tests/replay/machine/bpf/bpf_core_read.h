/* SPDX-License-Identifier: GPL-2.0 */
/* Stand-in for libbpf's header of this name: fields lie where this compiler puts them. */
#pragma once

#include "bpf_helpers.h"

/* Bytes of the registers at the top of a kernel stack: nothing lies behind what the program reads. */
#define bpf_core_type_size(type) (USER_REGS_WORDS * sizeof(u64))
#define bpf_core_field_exists(field) 1
#define bpf_core_type_exists(type) 1
#define bpf_core_enum_value(type, value) (value)
#define __builtin_preserve_access_index(what) (what)
#define bpf_core_read(to, bytes, from) bpf_probe_read_kernel(to, bytes, from)

/* Where a field lies, of null too: reading there fails, as in the kernel. */
#define CORE_ADDRESS(from, a) ((const char *)(from) + __builtin_offsetof(typeof(*(from)), a))

/* A failed read gives zeros, as in the kernel. */
#define CORE_READ_1(from, a) \
	({ \
		typeof((from)->a) value_ = {0}; \
		bpf_probe_read_kernel(&value_, sizeof(value_), CORE_ADDRESS(from, a)); \
		value_; \
	})
#define CORE_READ_2(from, a, b) ({ typeof((from)->a) first_ = CORE_READ_1(from, a); CORE_READ_1(first_, b); })
#define CORE_READ_3(from, a, b, c) ({ typeof((from)->a) outer_ = CORE_READ_1(from, a); CORE_READ_2(outer_, b, c); })
#define CORE_READ_OF(_1, _2, _3, name, ...) name
#define BPF_CORE_READ(from, ...) CORE_READ_OF(__VA_ARGS__, CORE_READ_3, CORE_READ_2, CORE_READ_1)(from, __VA_ARGS__)
#define BPF_CORE_READ_INTO(to, from, field) bpf_probe_read_kernel(to, sizeof(*(to)), CORE_ADDRESS(from, field))
/* Length with the final zero. */
#define BPF_CORE_READ_STR_INTO(to, from, field) \
	(bpf_probe_read_kernel(to, sizeof(*(to)), CORE_ADDRESS(from, field)) ? -14 : (long)strnlen((void *)(to), sizeof(*(to))) + 1)
