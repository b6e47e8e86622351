//! Real programs under load, with their results checked, natively and under Convoy.
//!
//! A program that is not installed fails its test with a line that says what to install.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dns;
mod erlang;
mod grpc;
mod haproxy;
mod http2;
mod java;
mod mariadb;
mod memcached;
mod mosquitto;
mod network;
mod nginx;
mod node;
mod postgres;
mod python;
mod rabbitmq;
mod redis;
mod redis_cluster;
mod rsync;
mod scripts;
mod ssh;
mod tls;
mod web;
