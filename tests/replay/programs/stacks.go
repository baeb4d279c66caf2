// Go stacks for recording: goroutines that compute, allocate (the collector then runs on the system stack) and look up maps.
// Says so with one line and runs until it is killed.
package main

import "fmt"

var sink uint64
var kept [64][]byte

//go:noinline
func leaf(seed uint64) uint64 {
	for i := 0; i < 1000; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
	}
	return seed
}

//go:noinline
func withFrame(seed uint64) uint64 {
	var table [32]uint64
	table[seed&31] = leaf(seed)
	return table[seed&31] + 1
}

//go:noinline
func allocates(seed uint64) uint64 {
	kept[seed&63] = make([]byte, 1<<16+seed&4095)
	return withFrame(seed) ^ uint64(len(kept[seed&63]))
}

//go:noinline
func deep(depth int, seed uint64) uint64 {
	if depth == 0 {
		return allocates(seed)
	}
	return deep(depth-1, seed) + 1
}

func work(seed uint64, done chan bool) {
	for {
		seed = deep(10, seed)
		sink += seed
	}
}

func main() {
	done := make(chan bool)
	fmt.Println("ready")
	go work(1, done)
	go work(2, done)
	<-done
}
