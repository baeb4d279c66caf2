package main

/*
extern int goCallback(int);
static int __attribute__((noinline)) c_inner(int n) { volatile int s = 0; for (int i = 0; i < n; i++) s += i; return goCallback(s & 7) + 1; }
static int __attribute__((noinline)) c_outer(int n) { return c_inner(n) + 1; }
*/
import "C"
import (
	"fmt"
	"os"
	"time"
)

//export goCallback
func goCallback(n C.int) C.int {
	s := C.int(0)
	for i := 0; i < 20000; i++ {
		s += n ^ C.int(i)
	}
	return s
}

//go:noinline
func work() int { return int(C.c_outer(20000)) + 1 }

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
	total := 0
	for time.Now().Before(done) {
		total += work()
	}
	fmt.Println(total)
}
