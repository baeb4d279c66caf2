// Functions whose frames compilers describe in unusual ways. Compiled, never run.
#include <alloca.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

extern void use(void *, ...);

// Stack pointer moves by an amount that only the program knows.
int grown(int n) {
    char *p = alloca(n);
    use(p, n);
    return p[n / 2];
}

// Arguments on the stack of the caller and a realigned frame: another register leads back.
int realigned(int n, ...) {
    __attribute__((aligned(64))) char a[256];
    va_list list;
    va_start(list, n);
    use(a, &list, alloca(n));
    va_end(list);
    return a[n] + n;
}

int many(int a, int b, int c, int d, int e, int f, long g, long h, long i) {
    __attribute__((aligned(32))) long x[8] = {a, b, c, d, e, f, g, h};
    use(x, &g, i);
    return (int)x[i & 7];
}

// A part that is hardly ever run is put elsewhere.
__attribute__((cold, noinline)) void unlikely(const char *);
int split(int *p, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        if (__builtin_expect(p[i] < 0, 0)) {
            unlikely("below zero");
            use(p, i, sum);
            abort();
        }
        sum += p[i] * sum;
        use(&sum, p[i]);
    }
    return sum;
}

// Early exits: the frame is built late, removed early, there again behind.
long shrunk(long *p, long n) {
    if (!p)
        return 0;
    long a = n, b = n * 2, c = n * 3, d = n * 4, e = n * 5;
    for (long i = 0; i < n; i++) {
        use(p, a, b, c, d, e, i);
        if (p[i] == 7)
            return a + b;
        a += p[i], b ^= a, c += b, d ^= c, e += d;
    }
    return a + b + c + d + e;
}

// Far more than a page.
int large(int n) {
    char a[100000];
    memset(a, n, sizeof a);
    use(a);
    return a[n & 4095];
}

#ifndef NO_NESTED
// The static chain is in yet another register.
int nested(int n) {
    int inner(int m) { return m + n; }
    use(inner, inner(3));
    return n;
}
#endif
