// A program of known chains for every Go since 1.13: frames of several sizes, closures, interfaces, defer and panic,
// goroutines, a growing stack, garbage collection beside all of it.
// Usage: calls SECONDS
package main

import (
	"os"
	"strconv"
	"time"
)

var sink uint64

//go:noinline
func spin(seed uint64) uint64 {
	for i := 0; i < 3000; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
	}
	return seed
}

//go:noinline
func large(seed uint64) uint64 {
	var room [300]uint64
	room[seed%300] = seed
	return spin(seed) + room[(seed+1)%300]
}

//go:noinline
func descends(seed uint64, depth int) uint64 {
	var room [64]uint64
	room[depth%64] = seed
	if depth > 1 {
		return descends(seed+1, depth-1) + room[seed%64]
	}
	return spin(seed) + room[seed%64]
}

type shape interface{ size(uint64) uint64 }
type round struct{ a, b uint64 }

//go:noinline
func (r round) size(seed uint64) uint64 { return spin(seed+r.a) + r.b }

//go:noinline
func viaInterface(s shape, seed uint64) uint64 { return s.size(seed) + 1 }

//go:noinline
func viaClosure(function func(uint64) uint64, seed uint64) uint64 { return function(seed) + 1 }

//go:noinline
func makes(add uint64) func(uint64) uint64 {
	return func(seed uint64) uint64 { return spin(seed+add) + 2 }
}

//go:noinline
func throws(seed uint64) uint64 {
	if seed != 0 {
		panic("expected")
	}
	return seed
}

//go:noinline
func caught(seed uint64) (result uint64) {
	defer recovers(&result)
	return throws(seed|1) + 1
}

//go:noinline
func recovers(result *uint64) {
	recover()
	*result = spin(*result)
}

//go:noinline
func allocates(seed uint64) uint64 {
	list := make([][]byte, 16)
	for i := range list {
		list[i] = make([]byte, 256+int(seed%512))
	}
	return uint64(len(list[seed%16])) + spin(seed)
}

//go:noinline
func turn(seed uint64, function func(uint64) uint64) uint64 {
	sum := large(seed) + viaInterface(round{seed, 2}, seed) + viaClosure(function, seed)
	sum += caught(seed) + allocates(seed)
	return sum + descends(seed, 40)
}

//go:noinline
func worker(done chan uint64, end time.Time) {
	var sum uint64 = 1
	function := makes(7)
	for time.Now().Before(end) {
		for i := 0; i < 100; i++ {
			sum = turn(sum, function)
		}
	}
	done <- sum
}

func main() {
	seconds := 60
	if len(os.Args) > 1 {
		seconds, _ = strconv.Atoi(os.Args[1])
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	done := make(chan uint64)
	for i := 0; i < 2; i++ {
		go worker(done, end)
	}
	sink = <-done + <-done
}
