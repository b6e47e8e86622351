//! Compares the structures and constants with the C headers, by compiling a program against them.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use super::ops::*;
use super::*;

/// Lines «what value» of this side, and the same as statements of a C program.
#[derive(Default)]
struct Both {
    rust: String,
    c: String,
}

impl Both {
    fn size(&mut self, name: &str, bytes: usize) {
        writeln!(self.rust, "sizeof {name} {bytes}").unwrap();
        writeln!(self.c, "printf(\"sizeof {name} %zu\\n\", sizeof(struct {name}));").unwrap();
    }

    fn field(&mut self, name: &str, field: &str, offset: usize) {
        let field = field.trim_end_matches('_');
        writeln!(self.rust, "{name}.{field} {offset}").unwrap();
        writeln!(self.c, "printf(\"{name}.{field} %zu\\n\", offsetof(struct {name}, {field}));").unwrap();
    }

    fn constant(&mut self, name: &str, value: u64) {
        writeln!(self.rust, "{name} {value}").unwrap();
        writeln!(self.c, "printf(\"{name} %llu\\n\", (unsigned long long) ({name}));").unwrap();
    }
}

macro_rules! fields {
    ($both:ident, $name:ident: $($field:ident),+) => {
        $($both.field(stringify!($name), stringify!($field), offset_of!($name, $field));)+
    };
}

macro_rules! whole {
    ($both:ident, $name:ident: $($field:ident),+) => {
        $both.size(stringify!($name), size_of::<$name>());
        fields!($both, $name: $($field),+);
    };
}

macro_rules! constants {
    ($both:ident: $($name:ident),+) => {
        $($both.constant(stringify!($name), $name as u64);)+
    };
}

fn objects(both: &mut Both) {
    whole!(both, fid: fclass, context, ops);
    whole!(both, fid_fabric: fid, ops, api_version);
    whole!(both, fid_domain: fid, ops, mr);
    fields!(both, fid_ep: fid, ops, cm, msg, rma);
    whole!(both, fid_pep: fid, ops, cm);
    whole!(both, fid_eq: fid, ops);
    whole!(both, fid_cq: fid, ops);
    whole!(both, fid_av: fid, ops);
    whole!(both, fid_mr: fid, mem_desc, key);
    fields!(both, fi_ops: size, close, bind, control);
    fields!(both, fi_ops_fabric: size, domain, passive_ep, eq_open, trywait);
    fields!(both, fi_ops_domain: size, av_open, cq_open, endpoint);
    fields!(both, fi_ops_mr: size, reg);
    fields!(both, fi_ops_cm: size, getname, connect, listen, accept, reject, shutdown);
    fields!(both, fi_ops_msg: size, recv, send);
    fields!(both, fi_ops_rma: size, writemsg);
    fields!(both, fi_ops_eq: size, read, readerr);
    fields!(both, fi_ops_cq: size, read, readerr, strerror);
    fields!(both, fi_ops_av: size, insert, remove);
}

fn attributes(both: &mut Both) {
    whole!(both, fi_tx_attr: caps, mode, op_flags, msg_order, comp_order, inject_size, size, iov_limit,
        rma_iov_limit, tclass);
    whole!(both, fi_rx_attr: caps, mode, op_flags, msg_order, comp_order, total_buffered_recv, size, iov_limit);
    fields!(both, fi_ep_attr: type_, protocol, protocol_version, max_msg_size, msg_prefix_size,
        max_order_raw_size, max_order_war_size, max_order_waw_size);
    fields!(both, fi_domain_attr: domain, name, threading, control_progress, data_progress, resource_mgmt,
        av_type, mr_mode, mr_key_size, cq_data_size);
    whole!(both, fi_fabric_attr: fabric, name, prov_name, prov_version, api_version);
    whole!(both, fi_info: next, caps, mode, addr_format, src_addrlen, dest_addrlen, src_addr, dest_addr,
        handle, tx_attr, rx_attr, ep_attr, domain_attr, fabric_attr, nic);
    whole!(both, fi_eq_attr: size, flags, wait_obj, signaling_vector, wait_set);
    whole!(both, fi_eq_cm_entry: fid, info, data);
    whole!(both, fi_eq_err_entry: fid, context, data, err, prov_errno, err_data, err_data_size);
    whole!(both, fi_cq_attr: size, flags, format, wait_obj, signaling_vector, wait_cond, wait_set);
    whole!(both, fi_cq_data_entry: op_context, flags, len, buf, data);
    whole!(both, fi_cq_err_entry: op_context, flags, len, buf, data, tag, olen, err, prov_errno, err_data,
        err_data_size);
    whole!(both, fi_av_attr: type_, rx_ctx_bits, count, ep_per_node, name, map_addr, flags);
    whole!(both, fi_rma_iov: addr, len, key);
    whole!(both, fi_msg_rma: msg_iov, desc, iov_count, addr, rma_iov, rma_iov_count, context, data);
    whole!(both, fi_context2: internal);
}

fn values(both: &mut Both) {
    constants!(both: FI_MSG, FI_RMA, FI_WRITE, FI_RECV, FI_SEND, FI_TRANSMIT, FI_REMOTE_WRITE,
        FI_REMOTE_CQ_DATA, FI_MORE, FI_COMPLETION, FI_INJECT, FI_DELIVERY_COMPLETE, FI_NUMERICHOST, FI_SOURCE, FI_CONTEXT,
        FI_RX_CQ_DATA, FI_CONTEXT2, FI_MR_LOCAL, FI_MR_VIRT_ADDR, FI_MR_ALLOCATED, FI_MR_PROV_KEY,
        FI_MR_ENDPOINT, FI_ORDER_WAW, FI_ORDER_SAS, FI_ORDER_STRICT, FI_ORDER_RMA_WAW, FI_EP_MSG, FI_EP_RDM,
        FI_THREAD_DOMAIN, FI_PROGRESS_MANUAL, FI_AV_UNSPEC, FI_WAIT_NONE, FI_WAIT_FD, FI_CQ_FORMAT_DATA,
        FI_CONNREQ, FI_CONNECTED, FI_SHUTDOWN, FI_GETWAIT, FI_ENABLE, FI_EAVAIL, FI_ADDR_UNSPEC,
        FI_KEY_NOTAVAIL);
    both.constant("FI_VERSION(1, 17)", u64::from(fi_version(1, 17)));
}

#[test]
fn as_in_the_headers() {
    if !Path::new("/usr/include/rdma/fabric.h").exists()
        || Command::new("gcc").arg("--version").output().is_err()
    {
        println!("skipped: no gcc or no libfabric headers");
        return;
    }
    let mut both = Both::default();
    objects(&mut both);
    attributes(&mut both);
    values(&mut both);
    let program = format!(
        "#include <stdio.h>\n#include <stddef.h>\n#include <rdma/fabric.h>\n#include <rdma/fi_domain.h>\n\
         #include <rdma/fi_endpoint.h>\n#include <rdma/fi_cm.h>\n#include <rdma/fi_rma.h>\n\
         #include <rdma/fi_eq.h>\n#include <rdma/fi_errno.h>\nint main(void) {{\n{}return 0;\n}}\n",
        both.c
    );
    let folder = std::env::temp_dir().join(format!("fabric-layout-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("layout.c");
    let binary = folder.join("layout");
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new("gcc").arg("-o").arg(&binary).arg(&source).output().unwrap();
    let printed = Command::new(&binary).output();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let printed = String::from_utf8(printed.unwrap().stdout).unwrap();
    for (ours, theirs) in both.rust.lines().zip(printed.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(both.rust.lines().count(), printed.lines().count());
}
