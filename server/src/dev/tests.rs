use super::*;

#[test]
fn a_port_in_use_is_told_with_its_number_and_flag() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = loopback(port, "--port", Transport::TcpAndUdp).unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("--port"), "{error}");
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    assert!(matches!(loopback(port, "--port", Transport::TcpAndUdp), Err(DevError::PortInUse { .. })));
    loopback(port, "--http-port", Transport::Tcp).unwrap();
}

#[test]
fn what_is_no_target_is_refused_before_anything_starts() {
    for target in ["5173", "", "gopher://x", "http://a b", "http://a\"b", "http://a\nb", "http://ü"] {
        assert!(matches!(check_target(target), Err(DevError::Target(_))), "{target}");
    }
    check_target("unix:///run/app.sock").unwrap();
}
