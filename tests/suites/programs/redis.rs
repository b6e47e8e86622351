//! redis-server with redis-benchmark and redis-cli, also while it saves in a forked child.

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

struct Redis<'a> {
    arena: &'a Arena,
    port: String,
    server: Service<'a>,
}

impl<'a> Redis<'a> {
    fn start(arena: &'a Arena, more: &[&str]) -> Self {
        let number = free_port();
        let port = number.to_string();
        let directory = arena.path("");
        let mut arguments = vec!["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"];
        arguments.push(directory.to_str().unwrap());
        arguments.extend(more);
        let server = arena.start("redis", arena.command(find("redis-server", "redis-server"), &arguments));
        arena.listening(number);
        Self { arena, port, server }
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-p", &self.port];
        all.extend(arguments);
        self.arena.run(self.arena.command(find("redis-cli", "redis-tools"), &all)).stdout.trim().to_owned()
    }

    /// Runs the benchmark and gives the names of the tests that it has finished.
    fn benchmark(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec!["-p", &self.port, "--csv"];
        all.extend(arguments);
        let output = self.arena.run(self.arena.command(find("redis-benchmark", "redis-tools"), &all)).stdout;
        let names = output.lines().skip(1).filter_map(|line| line.split(',').next());
        names.map(|name| name.trim_matches('"').to_owned()).collect()
    }

    fn end(self) -> String {
        let mut all = vec!["-p", &self.port];
        all.extend(["shutdown", "nosave"]);
        self.arena.run(self.arena.command(find("redis-cli", "redis-tools"), &all));
        self.server.ended().to_string()
    }
}

/// Loads of several kinds, then values that must be there.
fn loads(arena: &Arena) -> String {
    let redis = Redis::start(arena, &[]);
    let mut said = Vec::new();
    said.extend(redis.benchmark(&["-c", "50", "-n", "20000", "-t", "set,get,incr"]));
    said.extend(redis.benchmark(&["-c", "20", "-n", "5000", "-d", "3000", "-t", "set,get,lpush,lrange_100"]));
    said.extend(redis.benchmark(&["-c", "50", "-n", "40000", "-P", "16", "-t", "set,get"]));
    said.extend(redis.benchmark(&["-c", "10", "-n", "1000", "-k", "0", "-t", "ping_mbulk"]));
    said.push(redis.cli(&["get", "counter:__rand_int__"]));
    said.push(redis.cli(&["llen", "mylist"]));
    said.push(redis.cli(&["strlen", "key:__rand_int__"]));
    said.push(redis.end());
    said.join("\n")
}

/// Values written and read back by redis-cli, small and large.
fn values(arena: &Arena) -> String {
    let redis = Redis::start(arena, &[]);
    let mut script = String::new();
    for number in 0..500 {
        script.push_str(&format!("set key{number} {}\n", "v".repeat(1 + number * 3)));
        script.push_str(&format!("incrby sum {number}\nget key{}\n", number / 2));
    }
    script.push_str(&format!(
        "set large {}\nstrlen large\nget large\nget sum\ndbsize\n",
        "L".repeat(1_000_000)
    ));
    let file = arena.file("script", script);
    let mut command = arena.command(find("redis-cli", "redis-tools"), &["-p", &redis.port]);
    command.stdin(std::fs::File::open(file).unwrap());
    let said = arena.run(command).stdout;
    said + &redis.end()
}

/// BGSAVE forks in the middle of the load; the file is then loaded by a second server.
fn saving(arena: &Arena) -> String {
    let redis = Redis::start(arena, &[]);
    let arguments =
        ["-p", &redis.port, "-c", "30", "-n", "60000", "-r", "5000", "-d", "200", "-t", "set", "-q"];
    let load = arena.start("load", arena.command(find("redis-benchmark", "redis-tools"), &arguments));
    for number in 0..3 {
        redis.cli(&["set", "mark", &number.to_string()]);
        arena.eventually("a background save", || redis.cli(&["bgsave"]).contains("started"));
        arena.eventually("the save's end", || {
            redis.cli(&["info", "persistence"]).contains("rdb_bgsave_in_progress:0")
        });
        assert!(redis.cli(&["info", "persistence"]).contains("rdb_last_bgsave_status:ok"));
    }
    let load = load.ended().to_string();
    let ended = redis.end();
    let second = Redis::start(arena, &[]);
    let mark = second.cli(&["get", "mark"]);
    [load, ended, mark, second.end()].join("\n")
}

/// Publishing to subscribers, and a replica that follows a primary.
fn replica(arena: &Arena) -> String {
    let primary = Redis::start(arena, &["--dbfilename", "one.rdb", "--repl-diskless-sync-delay", "0"]);
    let second = Redis::start(arena, &["--dbfilename", "two.rdb", "--replicaof", "127.0.0.1", &primary.port]);
    primary.benchmark(&["-c", "20", "-n", "20000", "-r", "2000", "-d", "100", "-t", "set"]);
    primary.cli(&["set", "last", "one"]);
    arena.eventually("the replica's catching up", || second.cli(&["get", "last"]) == "one");
    let sizes = (primary.cli(&["dbsize"]), second.cli(&["dbsize"]));
    assert_eq!(sizes.0, sizes.1, "keys of primary and replica");
    [primary.end(), second.end()].join("\n")
}

#[test]
fn redis_loads() {
    both(true, loads);
}

#[test]
fn redis_values() {
    both(true, values);
}

#[test]
fn redis_saving() {
    both(true, saving);
}

#[test]
fn redis_replica() {
    both(true, replica);
}
