// Go calls C, and C calls Go back: goWork > cWork > cLeaf, and goAcross > cAcross > goBack > goBackWork.
// Usage: cgo SECONDS
package main

/*
#include <stdint.h>
extern uint64_t goBack(uint64_t);

static volatile uint64_t cSink;

static __attribute__((noinline)) uint64_t cLeaf(uint64_t seed)
{
	for (int i = 0; i < 100000; i++)
		seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed;
}

static __attribute__((noinline)) uint64_t cWork(uint64_t seed)
{
	volatile char room[200];
	room[seed % 200] = 1;
	return cLeaf(seed) + (uint64_t)room[seed % 200];
}

static __attribute__((noinline)) uint64_t cAcross(uint64_t seed)
{
	volatile char room[72];
	room[seed % 72] = 1;
	return goBack(seed) + (uint64_t)room[seed % 72];
}
*/
import "C"

import (
	"os"
	"strconv"
	"time"
)

//go:noinline
func goBackWork(seed uint64) uint64 {
	for i := 0; i < 100000; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
	}
	return seed
}

//export goBack
func goBack(seed C.uint64_t) C.uint64_t {
	return C.uint64_t(goBackWork(uint64(seed)) + 1)
}

//go:noinline
func goWork(seed uint64) uint64 { return uint64(C.cWork(C.uint64_t(seed))) + 1 }

//go:noinline
func goAcross(seed uint64) uint64 { return uint64(C.cAcross(C.uint64_t(seed))) + 1 }

//go:noinline
func worker(end time.Time) uint64 {
	sum := uint64(1)
	for time.Now().Before(end) {
		sum = goWork(sum) ^ goAcross(sum)
	}
	return sum
}

func main() {
	seconds := 60
	if len(os.Args) > 1 {
		seconds, _ = strconv.Atoi(os.Args[1])
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	done := make(chan uint64)
	go func() { done <- worker(end) }()
	println(worker(end) ^ <-done)
}
