package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"sort"
	"time"
)

type node struct{ left, right *node }

//go:noinline
func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{tree(depth - 1), tree(depth - 1)}
}

//go:noinline
func burn(n int) int {
	s := 0
	for i := 0; i < n; i++ {
		s += i ^ s
		if i%10000 == 0 {
			s += len(fmt.Sprint(i, "x"))
		}
	}
	return s
}

//go:noinline
func rec(depth int) int {
	if depth == 0 {
		return burn(200000)
	}
	return rec(depth-1) + 1
}

//go:noinline
func grow(depth int) int {
	var room [256]byte
	if depth == 0 {
		return int(room[depth&7])
	}
	return grow(depth-1) + int(room[depth&255])
}

// How long to run: the only argument.
func runFor() time.Duration {
	duration, err := time.ParseDuration(os.Args[1])
	if err != nil {
		panic(err)
	}
	return duration
}

func main() {
	done := time.Now().Add(runFor())
	go func() {
		for {
			sha256.Sum256(make([]byte, 1<<13))
			go grow(30)
			time.Sleep(time.Microsecond)
		}
	}()
	go func() {
		m := map[string]int{}
		for i := 0; ; i++ {
			_ = time.Now()
			m[fmt.Sprint(i%1000)] = i
			sort.Ints([]int{3, 1, 2, i})
		}
	}()
	total := 0
	for time.Now().Before(done) {
		total += rec(30)
		_ = tree(12)
	}
	fmt.Fprintln(os.Stderr, total)
}
