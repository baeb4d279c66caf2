// A program of known call chains and known shares; see chain.c.
//
// Build: go build -o chain-go chain.go
// Usage: chain-go SECONDS GOROUTINES
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// CPU time of this thread: preemption must not count.
//
//go:noinline
func cpuTime() time.Duration {
	const clockThreadCPUTimeID = 3
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPUTimeID, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}

//go:noinline
func leafSpin(seed uint64, rounds int) uint64 {
	for i := 0; i < rounds; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
	}
	return seed
}

//go:noinline
func gammaStep(seed uint64, rounds int) uint64 { return leafSpin(seed, rounds) + 1 }

//go:noinline
func beta(seed uint64, rounds int) uint64 { return gammaStep(seed, rounds) >> 1 }

//go:noinline
func alpha(seed uint64, rounds int) uint64 { return beta(seed, rounds) ^ 2 }

//go:noinline
func delta(seed uint64, rounds int) uint64 { return leafSpin(seed, rounds) ^ 3 }

//go:noinline
func run(worker int, length time.Duration) (a, d time.Duration) {
	runtime.LockOSThread()
	seed, start := uint64(worker+1), time.Now()
	for time.Since(start) < length {
		rounds := 100000 + int(seed>>50)
		before := cpuTime()
		seed = alpha(seed, rounds/5*6)
		middle := cpuTime()
		seed = delta(seed, rounds/5*4)
		a += middle - before
		d += cpuTime() - middle
	}
	return a, d
}

func main() {
	seconds, workers := 10.0, 2
	if len(os.Args) > 1 {
		seconds, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	if len(os.Args) > 2 {
		workers, _ = strconv.Atoi(os.Args[2])
	}
	var all sync.WaitGroup
	var lock sync.Mutex
	var a, d time.Duration
	for i := 0; i < workers; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			wa, wd := run(i, time.Duration(seconds*float64(time.Second)))
			lock.Lock()
			a, d = a+wa, d+wd
			lock.Unlock()
		}()
	}
	all.Wait()
	sum := (a + d).Seconds()
	fmt.Printf("{\"alpha\": %.6f, \"delta\": %.6f, \"cpu_seconds\": %.3f}\n", a.Seconds()/sum, d.Seconds()/sum, sum)
}
