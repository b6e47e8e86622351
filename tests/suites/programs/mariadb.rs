//! MariaDB under sysbench, with dumps that are loaded again, a table from a file of the client, and large values; with a
//! thread for each connection, and with a pool of threads, which waits by an epoll of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

struct MariaDb<'a> {
    arena: &'a Arena,
    port: String,
    server: Service<'a>,
}

impl<'a> MariaDb<'a> {
    /// An empty server whose root needs no password.
    fn start(arena: &'a Arena, threads: &str) -> Self {
        let number = free_port();
        let (base, port) = (arena.path("").display().to_string(), number.to_string());
        let data = format!("--datadir={base}/data");
        let install = ["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", &data];
        arena.run(arena.command(find("mariadb-install-db", "mariadb-server"), &install));
        let arguments = [
            "--no-defaults",
            "--user=root",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            "--innodb-use-native-aio=0",
            "--max-allowed-packet=64M",
            "--local-infile=1",
            &data,
            &format!("--port={port}"),
            &format!("--socket={base}/socket"),
            &format!("--pid-file={base}/pid"),
            &format!("--thread-handling={threads}"),
        ];
        let server = arena.start("mariadbd", arena.command(find("mariadbd", "mariadb-server"), &arguments));
        let mariadb = Self { arena, port, server };
        arena.eventually("answers", || {
            let command = mariadb.client("mariadb", &["-e", "select 1"]);
            arena.try_run(command, Duration::from_secs(30)).status.success()
        });
        mariadb
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let port = format!("--port={}", self.port);
        let place = ["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root", &port];
        let place = [&place[..], &["--max-allowed-packet=64M"], arguments].concat();
        self.arena.command(find(program, "mariadb-client"), &place)
    }

    fn query(&self, text: &str) -> String {
        let arguments = ["--batch", "--raw", "--skip-column-names", "--local-infile=1", "-e", text];
        self.arena.run(self.client("mariadb", &arguments)).stdout
    }

    /// Runs one of sysbench's own loads, and gives how many transactions it has done.
    fn sysbench(&self, arguments: &[&str]) -> String {
        let port = format!("--mysql-port={}", self.port);
        let place =
            ["--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-user=root", "--mysql-db=load", &port];
        let tables = ["--tables=3", "--table-size=3000"];
        let all = [&place[..], &tables, arguments].concat();
        let output = self.arena.run(self.arena.command(find("sysbench", "sysbench"), &all)).stdout;
        let done = output.lines().find_map(|line| line.trim().strip_prefix("transactions:"));
        done.and_then(|line| line.split_whitespace().next()).unwrap_or("none").to_owned()
    }

    fn dump(&self, database: &str, to: &Path) {
        let file = format!("--result-file={}", to.display());
        self.arena.run(self.client("mariadb-dump", &["--skip-comments", &file, database]));
    }

    /// Loads a dump as another database, whose dump must be the same.
    fn copy(&self) {
        let (first, second) = (self.arena.path("first.sql"), self.arena.path("second.sql"));
        self.dump("load", &first);
        self.query("create database copied");
        let mut command = self.client("mariadb", &["copied"]);
        command.stdin(File::open(&first).unwrap());
        self.arena.run(command);
        self.dump("copied", &second);
        let (first, second) = (fs::read(first).unwrap(), fs::read(second).unwrap());
        assert!(first.len() > 1_000_000, "{} bytes of dump", first.len());
        assert!(first == second, "{:?}: the dump of the copy is another", self.arena.mode());
    }
}

fn exercise(arena: &Arena, threads: &str) -> String {
    let mariadb = MariaDb::start(arena, threads);
    mariadb.query("create database `load`");
    mariadb.sysbench(&["oltp_read_write", "--threads=3", "prepare"]);
    let mut said = Vec::new();
    let loads: [&[&str]; 4] = [
        &["oltp_read_write", "--threads=8", "--events=400"],
        &["oltp_point_select", "--threads=16", "--events=10000"],
        &["oltp_read_only", "--threads=4", "--events=200", "--range_size=2000"],
        &["oltp_write_only", "--threads=4", "--events=200", "--db-ps-mode=disable"],
    ];
    for load in loads {
        said.push(mariadb.sysbench(&[load, &["--time=0", "run"]].concat()));
    }
    // Every row that was deleted has been inserted again.
    said.push(mariadb.query("select count(*), sum(id) from load.sbtest1; select count(*) from load.sbtest2"));
    mariadb.copy();
    let sums = |database: &str| {
        let tables = ["1", "2", "3"].map(|number| format!("{database}.sbtest{number}")).join(", ");
        let sums = mariadb.query(&format!("checksum table {tables} extended"));
        sums.lines().filter_map(|line| line.split_whitespace().last()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(sums("load"), sums("copied"), "{:?}: checksums", arena.mode());
    said.push(from_file(arena, &mariadb));
    said.push(large(&mariadb));
    said.push(mariadb.server.end(libc::SIGTERM).to_string());
    said.join("\n")
}

/// A table that the client sends as a file.
fn from_file(arena: &Arena, mariadb: &MariaDb<'_>) -> String {
    let mut rows = String::new();
    for number in 0..40_000 {
        writeln!(rows, "{number}\t{}", "r".repeat(number % 97)).unwrap();
    }
    let file = arena.file("rows", rows);
    mariadb.query(&format!(
        "create table load.rows (id int, text text);
         load data local infile '{}' into table load.rows;
         select count(*), sum(id), sum(length(text)) from load.rows",
        file.display()
    ))
}

/// Values of many megabytes in both directions.
fn large(mariadb: &MariaDb<'_>) -> String {
    let value = "0123456789abcdef".repeat(500_000);
    let file = mariadb.arena.file(
        "large.sql",
        format!(
            "create table load.large (text longtext); insert into load.large values ('{value}');
             select md5(text), length(text) from load.large; select text from load.large;\n"
        ),
    );
    let mut command = mariadb.client("mariadb", &["--batch", "--raw", "--skip-column-names"]);
    command.stdin(File::open(file).unwrap());
    let output = mariadb.arena.run(command).stdout;
    let (first, second) = output.split_once('\n').unwrap();
    assert!(second.trim_end() == value, "{:?}: a value of {} bytes", mariadb.arena.mode(), value.len());
    first.to_owned()
}

#[test]
fn mariadb_threads() {
    both(true, |arena| exercise(arena, "one-thread-per-connection"));
}

#[test]
fn mariadb_pool_of_threads() {
    both(true, |arena| exercise(arena, "pool-of-threads"));
}
