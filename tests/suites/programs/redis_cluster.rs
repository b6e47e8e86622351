//! A Redis cluster of three primaries and three replicas under load, one of which is promoted and one killed.

use std::time::Duration;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

const KEYS: usize = 300;

/// What is stored under the key of that number.
fn value(number: usize) -> String {
    format!("v{number}").repeat(1 + number * 20)
}

struct Node<'a> {
    port: String,
    service: Service<'a>,
}

struct Cluster<'a> {
    arena: &'a Arena,
    nodes: Vec<Node<'a>>,
}

impl<'a> Cluster<'a> {
    fn start(arena: &'a Arena) -> Self {
        let nodes = (0..6).map(|_| Self::node(arena)).collect();
        let cluster = Self { arena, nodes };
        let addresses: Vec<String> =
            cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let arguments =
            [&["--cluster", "create"], &addresses[..], &["--cluster-replicas", "1", "--cluster-yes"]]
                .concat();
        arena.run(arena.command(find("redis-cli", "redis-tools"), &arguments));
        cluster.settled();
        cluster
    }

    fn node(arena: &'a Arena) -> Node<'a> {
        let number = free_port();
        let port = number.to_string();
        let bus = free_port().to_string();
        let folder = arena.path(&port);
        std::fs::create_dir(&folder).unwrap();
        let arguments = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder.to_str().unwrap(),
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "3000",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let service = arena.start("redis", arena.command(find("redis-server", "redis-server"), &arguments));
        arena.listening(number);
        Node { port, service }
    }

    /// Asks one node; nothing when it does not answer.
    fn ask(&self, node: &Node<'_>, arguments: &[&str]) -> String {
        let all = [&["-c", "-p", &node.port], arguments].concat();
        let command = self.arena.command(find("redis-cli", "redis-tools"), &all);
        self.arena.try_run(command, Duration::from_secs(60)).stdout.trim().to_owned()
    }

    /// Waits until all nodes say that the cluster works and every primary has a replica that keeps up.
    fn settled(&self) {
        for node in &self.nodes {
            self.arena.eventually("a cluster", || {
                let info = self.ask(node, &["cluster", "info"]);
                let replication = self.ask(node, &["info", "replication"]);
                info.contains("cluster_state:ok")
                    && (replication.contains("master_link_status:up")
                        || replication.contains("state=online")
                        || self.nodes.len() < 6)
            });
        }
    }

    fn benchmark(&self, arguments: &[&str]) -> String {
        let all = [&["-p", &self.nodes[0].port, "--cluster", "--csv"], arguments].concat();
        let output = self.arena.run(self.arena.command(find("redis-benchmark", "redis-tools"), &all)).stdout;
        let names = output.lines().filter_map(|line| line.split(',').next());
        names.filter(|name| name.starts_with('"')).collect::<Vec<_>>().join(" ")
    }

    /// Writes values through redirections, and reads them back.
    fn values(&self) {
        self.commands(|number| format!("set key{number} {}", value(number)), |_| "OK".into());
        self.still_there();
    }

    fn still_there(&self) {
        self.commands(|number| format!("get key{number}"), value);
    }

    /// Gives a command for each of some keys, and checks the answers; redirections name ports and are left out.
    fn commands(&self, command: impl Fn(usize) -> String, answer: impl Fn(usize) -> String) {
        let script: String = (0..KEYS).map(|number| command(number) + "\n").collect();
        let file = self.arena.file("script", script);
        let mut command =
            self.arena.command(find("redis-cli", "redis-tools"), &["-c", "-p", &self.nodes[0].port]);
        command.stdin(std::fs::File::open(file).unwrap());
        let said = self.arena.run(command).stdout;
        let mut answers = said.lines().filter(|line| !line.starts_with("->") && !line.is_empty());
        for number in 0..KEYS {
            let got = answers.next().unwrap_or("nothing");
            assert!(
                got == answer(number),
                "{:?}: key{number}: {}",
                self.arena.mode(),
                &got[..got.len().min(200)]
            );
        }
    }

    /// Waits until one node says this about its replication.
    fn becomes(&self, node: &Node<'_>, role: &str) {
        self.arena.eventually(role, || self.ask(node, &["info", "replication"]).contains(role));
    }

    /// The place of a node with a role; never the first, to which the clients speak.
    fn with_role(&self, role: &str) -> usize {
        let has = |node: &Node<'_>| self.ask(node, &["info", "replication"]).contains(role);
        1 + self.nodes[1..].iter().position(has).expect("a node of that role")
    }
}

fn exercise(arena: &Arena) -> String {
    let mut cluster = Cluster::start(arena);
    cluster.values();
    let mut said = vec![cluster.benchmark(&["-c", "30", "-n", "10000", "-r", "5000", "-t", "set,get,incr"])];
    said.push(cluster.benchmark(&["-c", "20", "-n", "10000", "-P", "16", "-d", "500", "-t", "set,get"]));
    said.push(cluster.benchmark(&["-c", "10", "-n", "1000", "-d", "20000", "-t", "set,get"]));
    cluster.still_there();
    // A replica takes over when it is told to, and another when its primary is killed.
    let replica = &cluster.nodes[cluster.with_role("role:slave")];
    cluster.ask(replica, &["cluster", "failover"]);
    cluster.becomes(replica, "role:master");
    cluster.settled();
    cluster.still_there();
    let victim = cluster.with_role("role:master");
    let killed = cluster.nodes.remove(victim);
    killed.service.end(libc::SIGKILL);
    arena.eventually("three primaries without the killed one", || {
        cluster.nodes.iter().all(|node| {
            let nodes = cluster.ask(node, &["cluster", "nodes"]);
            let (dead, alive): (Vec<&str>, _) =
                nodes.lines().partition(|line| line.contains(&format!(":{}@", killed.port)));
            let primaries = alive.iter().filter(|line| line.contains("master") && !line.contains("fail"));
            dead.iter().all(|line| line.contains("fail")) && primaries.count() == 3
        })
    });
    cluster.settled();
    cluster.still_there();
    cluster.values();
    for node in cluster.nodes {
        node.service.end(libc::SIGKILL);
    }
    said.join("\n")
}

#[test]
fn redis_cluster() {
    both(true, exercise);
}
