"""Servers and clients over the loopback: http.server with urllib, xmlrpc, asyncio, datagrams."""

import asyncio
import http.server
import socket
import socketserver
import threading
import urllib.request
import xmlrpc.client
import xmlrpc.server


class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode() * 3)

    def log_message(self, *arguments: object) -> None:
        pass


def serve(server: socketserver.TCPServer) -> tuple[str, int]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address


web = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
_, port = serve(web)
for number in range(5):
    print(urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}").read())
web.shutdown()

calls = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
calls.register_function(pow)
_, port = serve(calls)
print(xmlrpc.client.ServerProxy(f"http://127.0.0.1:{port}").pow(2, 10))
calls.shutdown()


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


async def ask(port: int, number: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"number %d\n" % number)
    return await reader.read()


async def main() -> None:
    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(await asyncio.gather(*(ask(port, number) for number in range(20))))
    server.close()
    await server.wait_closed()
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        print(error.errno)


asyncio.run(main())
with socket.socket(type=socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
    here.bind(("127.0.0.1", 0))
    there.sendto(b"datagram", here.getsockname())
    print(here.recvfrom(100)[0])
