# Sourced by scripts beside it: a node on loopback, or a cluster of `NODES`, and targets for a client. Sets `work`, `apex`, `ca`,
# `files_port` and `echo_port`, and what scratch.sh sets.

target() { python3 cross/targets.py "$@"; }

server=${SPECTER_SERVER:-target/debug/specter-server}
[ -x "$server" ] || cargo build -p specter-server

. cross/scratch.sh

# A target that serves files, and one that sends bytes back.
mkdir "$work/files"
echo 'a page behind the tunnel' >"$work/files/index.html"
head -c 3000000 /dev/urandom >"$work/files/large"
python3 -u - "$work/files" >"$work/targets" <<'PYTHON' &
import functools, http.server, socketserver, sys, threading


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


echo = Threads(("127.0.0.1", 0), Echo)
files = Threads(("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
threading.Thread(target=echo.serve_forever, daemon=True).start()
print(f"ports {files.server_address[1]} {echo.server_address[1]}")
files.serve_forever()
PYTHON
children+=($!)
read -r _ files_port echo_port < <(until_line 60 "$work/targets" '^ports')

# Numbers in a row, each free for TCP and UDP.
nodes=${NODES:-1}
port=$(python3 - "$nodes" <<'PYTHON'
import socket, sys

while True:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
    sockets = []
    try:
        for number in range(port, port + int(sys.argv[1])):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sockets.append(socket.socket(type=kind))
                sockets[-1].bind(("127.0.0.1", number))
    except (OSError, OverflowError):
        continue
    finally:
        for each in sockets:
            each.close()
    break
print(port)
PYTHON
)
"$server" dev --data-dir "$work/node" --nodes "$nodes" --port "$port" --http-port 0 >"$work/node.out" 2>"$work/node.out.log" &
children+=($!)
curl_line=$(until_line 120 "$work/node.out" '^curl --cacert')
ca=$(awk '{ print $3 }' <<<"$curl_line")
apex=localhost:$port
