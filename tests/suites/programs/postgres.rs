//! PostgreSQL: a process for each connection, under pgbench, with the accounts checked, and with clients of two kinds:
//! libpq, and asyncpg, which has a protocol machine of its own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service, user};

use crate::scripts::python_with;

/// What it and its clients run as when the tests run as root.
fn identity() -> Option<(u32, u32)> {
    // SAFETY: no memory is involved.
    (unsafe { libc::geteuid() } == 0).then(user::postgres)
}

struct Postgres<'a> {
    arena: &'a Arena,
    port: String,
}

impl<'a> Postgres<'a> {
    /// A fresh database that answers.
    fn start(arena: &'a Arena) -> (Self, Service<'a>) {
        let number = free_port();
        let postgres = Self { arena, port: number.to_string() };
        let data = arena.path("data");
        data_directory(&postgres, &data);
        let settings =
            ["listen_addresses=127.0.0.1", "fsync=off", "unix_socket_directories=", "autovacuum=off"];
        let mut arguments = vec!["-D", data.to_str().unwrap(), "-p", &postgres.port];
        settings.iter().for_each(|setting| arguments.extend(["-c", setting]));
        let server = arena.start("postgres", postgres.command("postgres", &arguments));
        arena.listening(number);
        arena.eventually("answers", || {
            let command = postgres.command("psql", &["-XAtc", "select 1"]);
            arena.try_run(command, std::time::Duration::from_secs(30)).status.success()
        });
        (postgres, server)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        self.client(self.arena.command(find(program, "postgresql"), arguments))
    }

    /// Lets a command find the server, and run as its user.
    fn client(&self, mut command: Command) -> Command {
        command.env("PGHOST", "127.0.0.1").env("PGPORT", &self.port).env("PGDATABASE", "postgres");
        command.env("HOME", self.arena.path("")).env_remove("PGUSER").env("PGCONNECT_TIMEOUT", "20");
        if let Some((user, group)) = identity() {
            command.uid(user).gid(group).env("PGUSER", "postgres");
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.arena.run(self.command(program, arguments)).stdout
    }

    fn query(&self, text: &str) -> String {
        self.run("psql", &["-XAtc", text]).trim().to_owned()
    }

    /// Runs pgbench, and gives the lines that must be the same every time.
    fn bench(&self, arguments: &[&str]) -> String {
        let output = self.run("pgbench", &[&["-n"], arguments].concat());
        let lines = output.lines().filter(|line| line.contains("processed") || line.contains("failed"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn data_directory(postgres: &Postgres<'_>, path: &Path) {
    fs::create_dir(path).unwrap();
    if let Some((user, group)) = identity() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
    let path = path.to_str().unwrap();
    let user = if identity().is_some() { vec!["-U", "postgres"] } else { vec![] };
    postgres.run(
        "initdb",
        &[&["-D", path, "-A", "trust", "-N", "--no-locale", "-E", "UTF8"], &user[..]].concat(),
    );
}

fn exercise(arena: &Arena) -> String {
    let (postgres, server) = Postgres::start(arena);
    let mut said = Vec::new();
    postgres.run("pgbench", &["-i", "-q", "-s", "1"]);
    said.push(postgres.query("select count(*) from pgbench_accounts"));
    said.push(postgres.bench(&["-S", "-c", "8", "-j", "2", "-t", "500"]));
    said.push(postgres.bench(&["-c", "8", "-j", "2", "-t", "100"]));
    said.push(postgres.bench(&["-S", "-M", "prepared", "-c", "4", "-t", "300"]));
    said.push(postgres.bench(&["-S", "-C", "-c", "4", "-t", "20"]));
    // Every transaction has changed one account, one teller and one branch by the same amount.
    let sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
                       (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches),
                       (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history),
                       (select count(*) from pgbench_history)";
    said.push(postgres.query(sums));
    let text = "select md5(string_agg(md5(i::text), '' order by i)) from generate_series(1, 200000) i";
    said.push(postgres.query(text));
    said.push(
        postgres
            .query("select i, repeat(md5(i::text), 10) from generate_series(1, 5000) i")
            .len()
            .to_string(),
    );
    said.push(server.end(libc::SIGINT).to_string());
    said.join("\n")
}

/// A script that checks everything itself; a copy of it, because the server's user may not be able to read it here.
fn scripted(arena: &Arena, text: &str, module: (&str, &str)) -> String {
    let python = python_with(&[module]);
    let (postgres, server) = Postgres::start(arena);
    let script = arena.file("script.py", text);
    let said = arena.run(postgres.client(arena.command(python, &[script.to_str().unwrap()]))).stdout;
    let status = server.end(libc::SIGINT);
    format!("{said}{status}")
}

#[test]
fn postgres_libpq() {
    both(true, |arena| {
        scripted(
            arena,
            include_str!("../../programs/python/postgres_libpq.py"),
            ("psycopg2", "python3-psycopg2"),
        )
    });
}

#[test]
fn postgres_asyncpg() {
    both(true, |arena| {
        scripted(
            arena,
            include_str!("../../programs/python/postgres_asyncpg.py"),
            ("asyncpg", "python3-asyncpg"),
        )
    });
}

#[test]
fn postgres_pgbench() {
    both(true, exercise);
}
