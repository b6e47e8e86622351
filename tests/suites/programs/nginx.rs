//! nginx with several workers, under wrk, with every body compared; reloads in the middle; as a proxy.

use std::fs;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

use crate::web;

/// Starts an nginx with some servers in its configuration.
pub fn start<'a>(arena: &'a Arena, servers: &str) -> Service<'a> {
    let base = arena.path("").display().to_string();
    let config = format!(
        "daemon off; user root; worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.err warn;
         events {{ worker_connections 1000; }}
         http {{
           access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000; client_max_body_size 100m;
           client_body_temp_path {base}/body; proxy_temp_path {base}/proxy; fastcgi_temp_path {base}/f;
           uwsgi_temp_path {base}/u; scgi_temp_path {base}/s;
           {servers}
         }}"
    );
    let file = arena.file("nginx.conf", config);
    let arguments = ["-p", &base, "-e", "stderr", "-c", file.to_str().unwrap()];
    arena.start("nginx", arena.command(find("nginx", "nginx"), &arguments))
}

struct Nginx<'a> {
    arena: &'a Arena,
    port: u16,
    server: Service<'a>,
}

impl<'a> Nginx<'a> {
    fn start(arena: &'a Arena, listen: &str) -> Self {
        let port = free_port();
        let www = web::files(arena).display().to_string();
        let servers = format!(
            "upstream back {{ server 127.0.0.1:{port}; keepalive 16; }}
             server {{
               listen 127.0.0.1:{port} {listen};
               root {www};
               location /said {{ return 200 \"hello\n\"; }}
               location /copied/ {{ sendfile off; alias {www}/; }}
               location /through/ {{
                 proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass http://back/;
               }}
             }}"
        );
        let server = start(arena, &servers);
        arena.listening(port);
        Self { arena, port, server }
    }

    fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Fetches every file in every way and compares the bodies with the files.
    fn bodies(&self) -> String {
        ["", "copied/", "through/"].map(|way| web::bodies(self.arena, &self.address(way), &[])).join("\n")
    }

    fn load(&self, path: &str) {
        web::load(self.arena, &self.address(path));
    }

    fn end(self) -> String {
        self.server.end(libc::SIGQUIT).to_string()
    }
}

fn exercise(arena: &Arena, listen: &str) -> String {
    let nginx = Nginx::start(arena, listen);
    let mut said = vec![nginx.bodies()];
    for path in ["small", "said", "copied/middle", "through/small"] {
        nginx.load(path);
    }
    said.push(nginx.bodies());
    said.push(nginx.end());
    said.join("\n")
}

/// New workers take over in the middle of the load; afterwards everything is as before.
fn reload(arena: &Arena) -> String {
    let nginx = Nginx::start(arena, "reuseport");
    let load = arena.start("wrk", web::wrk(arena, &nginx.address("small"), "3"));
    let pid = nginx.server.pid();
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for _ in 0..3 {
        let before = children();
        nginx.server.signal(libc::SIGHUP);
        arena.eventually("new workers", || {
            let now = children();
            let old: Vec<&str> = before.split_whitespace().collect();
            now.split_whitespace().filter(|worker| !old.contains(worker)).count() >= 2
        });
        nginx.bodies();
    }
    load.ended();
    nginx.load("small");
    let said = nginx.bodies();
    said + &nginx.end()
}

#[test]
fn nginx_shared_listener() {
    both(true, |arena| exercise(arena, ""));
}

#[test]
fn nginx_reuseport() {
    both(true, |arena| exercise(arena, "reuseport"));
}

#[test]
fn nginx_reload_under_load() {
    both(true, reload);
}
