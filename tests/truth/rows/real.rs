//! Programs that people run, under a load of their own kind.

use crate::row::{Build, Load, Oracle, Row};

/// Ends the row as not run, with a word, when a tool is not there.
macro_rules! script {
    ($($line:literal)*) => { concat!($($line, "\n"),*) };
}

/// PostgreSQL refuses to run as root, and its files must be its user's.
const POSTGRESQL: &str = script! {
    "B=$(dirname \"$P\")"
    "chmod 755 \"$D\"; mkdir \"$D/data\""
    "as() { \"$@\"; }"
    "if [ \"$(id -u)\" = 0 ]; then chown postgres \"$D/data\"; as() { setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"; }; fi"
    "as \"$B/initdb\" -D \"$D/data\" -A trust --no-sync >/dev/null"
    "as \"$P\" -D \"$D/data\" -k \"$D/data\" -p $PORT -c listen_addresses= -c fsync=off &"
    "until as \"$B/pg_isready\" -q -h \"$D/data\" -p $PORT; do sleep 0.1; done"
    "as \"$B/createdb\" -h \"$D/data\" -p $PORT bench"
    "as \"$B/pgbench\" -q -i -s 3 -h \"$D/data\" -p $PORT bench"
    "exec setpriv --reuid=postgres --regid=postgres --clear-groups \"$B/pgbench\" -T 600 -c 4 -h \"$D/data\" -p $PORT bench"
};

const NGINX: &str = script! {
    "chmod 755 \"$D\"; head -c 30000 /usr/share/common-licenses/GPL-3 >\"$D/page.txt\""
    "cat >\"$D/nginx.conf\" <<END"
    "pid $D/pid; error_log $D/error; worker_processes 1; daemon off;"
    "events { worker_connections 100; }"
    "http { access_log $D/access; default_type text/plain; gzip on; gzip_types text/plain;"
    "  server { listen 127.0.0.1:$PORT; root $D; location /old { return 301 /page.txt; } } }"
    "END"
    "\"$P\" -p \"$D\" -e \"$D/error\" -c \"$D/nginx.conf\" &"
    "until ab -q -n 1 http://127.0.0.1:$PORT/page.txt >/dev/null 2>&1; do sleep 0.1; done"
    "while :; do"
    "  ab -q -k -c 4 -n 3000 -H 'Accept-Encoding: gzip' http://127.0.0.1:$PORT/page.txt >/dev/null"
    "  ab -q -c 4 -n 3000 http://127.0.0.1:$PORT/old >/dev/null"
    "done"
};

const REDIS: &str = script! {
    "\"$P\" --port $PORT --bind 127.0.0.1 --save '' --dir \"$D\" >/dev/null &"
    "until redis-cli -p $PORT ping >/dev/null 2>&1; do sleep 0.1; done"
    "exec redis-benchmark -p $PORT -q -l -n 20000 -P 16 -r 10000"
};

const SQLITE: &str = script! {
    "cat >\"$D/query\" <<END"
    "DROP TABLE IF EXISTS t; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL); BEGIN;"
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 20000)"
    "  INSERT INTO t SELECT x, hex(x * 7919 % 10007) || 'text', x / 3.0 FROM n;"
    "COMMIT; CREATE INDEX i ON t(b);"
    "SELECT substr(b, 1, 2) AS k, count(*), sum(c), max(upper(b)) FROM t GROUP BY k ORDER BY 2 DESC;"
    "SELECT count(*) FROM t AS x JOIN t AS y ON x.b = y.b WHERE x.c > 100 AND y.b LIKE '%3%';"
    "END"
    "while :; do cat \"$D/query\"; done | \"$P\" \"$D/data\" >/dev/null"
};

const CLANG: &str = script! {
    "cat >\"$D/a.cpp\" <<END"
    "#include <algorithm>"
    "#include <functional>"
    "#include <iostream>"
    "#include <map>"
    "#include <regex>"
    "#include <string>"
    "int main(int n, char **v) { std::map<std::string, std::function<int(int)>> m; std::regex r(v[0]);"
    "  for (int i = 0; i < n; i++) m[v[i]] = [i](int x) { return x + i; };"
    "  for (auto &[k, f] : m) if (std::regex_search(k, r)) std::cout << k << f(n); }"
    "END"
    "while :; do \"$P\" -x c++ -std=c++17 -O2 -c \"$D/a.cpp\" -o \"$D/a.o\"; done"
};

const FFMPEG: &str = script! {
    "while :; do"
    "  \"$P\" -nostdin -loglevel error -f lavfi -i testsrc2=size=640x360:rate=30 -f lavfi -i sine=frequency=440 -t 20 \\"
    "    -vf hue=s=2,unsharp -c:v libx264 -preset fast -c:a aac -threads 2 -f null -"
    "done"
};

const OPENSSL: &str = script! {
    "while :; do"
    "  \"$P\" speed -seconds 1 rsa2048 ecdsap256 ecdhx25519 sha256 sha512 md5 >/dev/null 2>&1"
    "  \"$P\" speed -seconds 1 -evp aes-256-gcm >/dev/null 2>&1"
    "  \"$P\" speed -seconds 1 -evp chacha20-poly1305 >/dev/null 2>&1"
    "done"
};

const CHROMIUM: &str = script! {
    "cat >\"$D/page.html\" <<END"
    "<canvas id=c width=400 height=300></canvas><div id=d></div><script>"
    "let n = 0; const x = c.getContext('2d');"
    "function turn() { const a = [];"
    "  for (let i = 0; i < 20000; i++) a.push((i * 7919 + n) % 10007); a.sort((p, q) => p - q);"
    "  for (let i = 0; i < 200; i++) { x.fillStyle = 'hsl(' + (n + i) + ' 80% 50%)'; x.fillRect(i, a[i] % 300, 90, 70); }"
    "  d.textContent = JSON.stringify(a.slice(0, 300)); n++; setTimeout(turn, 0); } turn();"
    "</script>"
    "END"
    "exec \"$P\" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync \\"
    "  --disable-component-update --remote-debugging-port=0 --user-data-dir=\"$D/profile\" \"file://$D/page.html\""
};

/// Name, where it is installed, how it runs.
const REAL: &[(&str, &[&str], &str)] = &[
    ("PostgreSQL", &["/usr/lib/postgresql/*/bin/postgres"], POSTGRESQL),
    ("nginx", &["/usr/sbin/nginx", "/usr/bin/nginx"], NGINX),
    ("Redis", &["/usr/bin/redis-server"], REDIS),
    ("SQLite", &["/usr/bin/sqlite3"], SQLITE),
    ("clang", &["/usr/lib/llvm-*/bin/clang", "/usr/bin/clang"], CLANG),
    ("ffmpeg", &["/usr/bin/ffmpeg"], FFMPEG),
    ("OpenSSL", &["/usr/bin/openssl"], OPENSSL),
    ("Chromium", &["/usr/lib/chromium/chromium", "/usr/lib64/chromium-browser/chromium-browser"], CHROMIUM),
];

/// All of them.
pub(super) fn rows() -> Vec<Row> {
    REAL.iter()
        .map(|(name, paths, script)| Row {
            name: (*name).into(),
            build: Build::Installed(paths),
            load: Load::Script(script),
            oracle: Oracle::Gdb,
            short: false,
        })
        .collect()
}
