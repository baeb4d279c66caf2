/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From a code address to a rule: mapping, inner pages, leaf, row. `agent::tables::pages` mirrors it in Rust.
 *
 * Every search is a fixed number of branch-free steps. The bit that says "step" comes out of a shift and goes into a
 * multiplication: an AND with a 0 or -1 mask makes newer verifiers fork the path at each step, and without the two
 * barriers the compiler turns sums into ORs whose bounds older ones forget. The index is bounded by the sum of its steps.
 */
#pragma once

#include "maps.h"

#define STEP(index, by, difference) \
	do { \
		u64 difference_ = (difference); \
		barrier_var(difference_); \
		u64 by_ = ((difference_ >> 63) ^ 1) * (by); \
		barrier_var(by_); \
		(index) += by_; \
	} while (0)

/* Last entry of a mapping page that starts at or below the address; 0 = before the first. */
static __always_inline u64 search_mappings(const struct abi_mapping_page *page, u64 pc)
{
	u64 i = 0;

	STEP(i, 64, pc - page->start[i + 64]);
	STEP(i, 32, pc - page->start[i + 32]);
	STEP(i, 16, pc - page->start[i + 16]);
	STEP(i, 8, pc - page->start[i + 8]);
	STEP(i, 4, pc - page->start[i + 4]);
	STEP(i, 2, pc - page->start[i + 2]);
	STEP(i, 1, pc - page->start[i + 1]);
	return i;
}

/* Last key of an inner page at or below the offset; 0 = before the first. */
static __always_inline u64 search_inner(const struct page *page, u64 offset)
{
	u64 i = 0;

	STEP(i, 256, offset - page->word[i + 256]);
	STEP(i, 128, offset - page->word[i + 128]);
	STEP(i, 64, offset - page->word[i + 64]);
	STEP(i, 32, offset - page->word[i + 32]);
	STEP(i, 16, offset - page->word[i + 16]);
	STEP(i, 8, offset - page->word[i + 8]);
	STEP(i, 4, offset - page->word[i + 4]);
	STEP(i, 2, offset - page->word[i + 2]);
	STEP(i, 1, offset - page->word[i + 1]);
	return i;
}

/*
 * Rule that holds at an offset not below the first row, and bytes passed since its row: first the group (three cache lines
 * at most), then the row (one).
 */
static __always_inline u32 search_leaf(const struct page *page, u64 offset)
{
	u64 group = 0, row = 0, passed, key;
	u32 word;

	STEP(group, 32, offset - page->word[group + 32]);
	STEP(group, 16, offset - page->word[group + 16]);
	STEP(group, 8, offset - page->word[group + 8]);
	STEP(group, 4, offset - page->word[group + 4]);
	STEP(group, 2, offset - page->word[group + 2]);
	STEP(group, 1, offset - page->word[group + 1]);
	passed = offset - page->word[group];
	if (passed > ABI_GROUP_SPAN)
		passed = ABI_GROUP_SPAN;
	key = passed << ABI_ROW_RULE_BITS | ((1 << ABI_ROW_RULE_BITS) - 1);
	group <<= 4;
	STEP(row, 8, key - page->word[group + row + 8]);
	STEP(row, 4, key - page->word[group + row + 4]);
	STEP(row, 2, key - page->word[group + row + 2]);
	STEP(row, 1, key - page->word[group + row + 1]);
	word = page->word[group + row];
	passed -= word >> ABI_ROW_RULE_BITS;
	if (passed > ABI_MAX_PASSED)
		passed = ABI_MAX_PASSED;
	return (word & ((1 << ABI_ROW_RULE_BITS) - 1)) | (u32)passed << PASSED_SHIFT;
}

/* A pointer to the mapping that covers the address, or null with `why` set. */
static __always_inline struct cached_mapping *find_mapping(struct record *r, u64 pc, u32 *why)
{
	/* Libraries lie apart by megabytes: these bits tell most of them apart. */
	struct cached_mapping *slot = &r->mappings[(pc >> 21 ^ pc >> 26) & (CACHED_MAPPINGS - 1)];
	struct abi_mapping_page *page;
	u64 i;

	if (slot->stamp == r->stamp && pc - slot->start < slot->len)
		return slot;
	r->mapping_misses++;
	*why = END_TABLE_MOVED;
	page = get_page(r->mapping_page);
	if (!page || page->start[0] != r->stamp)
		return 0;
	if (r->mapping_levels) {
		i = search_mappings(page, pc);
		page = get_page(page->root[i]);
		if (i == 0)
			goto none;
		if (!page || page->start[0] != r->stamp)
			return 0;
	}
	i = search_mappings(page, pc);
	if (i == 0)
		goto none;
	slot->stamp = r->stamp;
	slot->start = page->start[i];
	slot->len = (u64)page->pages[i] << 12;
	slot->bias = page->bias[i];
	slot->root = page->root[i];
	if (pc - slot->start < slot->len)
		return slot;
none:
	*why = END_NO_MAPPING;
	return 0;
}

/* Rule of a code address and bytes passed since its row, or FAILED | reason. */
static __always_inline u32 search_tables(struct record *r, u64 pc)
{
	u32 why = 0;
	struct cached_mapping *mapping = find_mapping(r, pc, &why);
	struct page *page;
	u32 id, levels;
	u64 offset, i;

	if (!mapping)
		return FAILED | why;
	if (mapping->root >= ABI_TABLE_PENDING)
		return FAILED | (mapping->root == ABI_NO_TABLE ? END_NO_TABLE : END_TABLE_PENDING);
	offset = pc - mapping->bias;
	/* The largest 32-bit number is the padding of inner pages and no legal key. */
	if (offset >= 0xffffffff)
		return FAILED | END_NO_RULE;
	id = mapping->root & 0xffffff;
	levels = mapping->root >> 24;
	if (levels >= 2) {
		page = get_page(id);
		if (!page)
			return FAILED | END_TABLE_MOVED;
		i = search_inner(page, offset);
		if (i == 0)
			return FAILED | END_NO_RULE;
		id = page->word[512 + i];
	}
	if (levels >= 1) {
		page = get_page(id);
		if (!page)
			return FAILED | END_TABLE_MOVED;
		i = search_inner(page, offset);
		if (i == 0)
			return FAILED | END_NO_RULE;
		id = page->word[512 + i];
	}
	page = get_page(id);
	if (!page)
		return FAILED | END_TABLE_MOVED;
	if (offset < page->word[ABI_LEAF_FIRST_GROUP])
		return FAILED | END_NO_RULE;
	return search_leaf(page, offset);
}

/* The same, remembering what was found, failures too: they hold as long as the stamp. */
static __always_inline u32 find_rule(struct record *r, u64 pc)
{
	struct cached_rule *entry = &r->rules[(pc ^ pc >> 10 ^ r->stamp) & (CACHED_RULES - 1)];
	u32 rule;

	if (entry->pc == pc && entry->stamp == r->stamp)
		return entry->rule;
	r->cache_misses++;
	rule = search_tables(r, pc);
	if (rule != (FAILED | END_TABLE_MOVED)) {
		entry->pc = pc;
		entry->stamp = r->stamp;
		entry->rule = rule;
	}
	return rule;
}
