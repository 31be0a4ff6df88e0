"""asyncio: servers and clients over UNIX sockets, a subprocess, a signal, a thread, a time limit."""

import asyncio
import os
import signal
import subprocess


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


async def ask(number: int) -> bytes:
    reader, writer = await asyncio.open_unix_connection("socket")
    writer.write(b"hello %d\n" % number)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def main() -> None:
    server = await asyncio.start_unix_server(serve, "socket")
    print(await asyncio.gather(*(ask(number) for number in range(20))))
    sort = await asyncio.create_subprocess_exec("sort", "-r", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print(await sort.communicate(b"a\nc\nb\n"), sort.returncode)
    loop = asyncio.get_running_loop()
    signalled = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, signalled.set_result, 5)
    os.kill(os.getpid(), signal.SIGUSR1)
    print(await signalled, await asyncio.to_thread(lambda: 7))
    try:
        await asyncio.wait_for(asyncio.sleep(5), 0.01)
    except TimeoutError:
        print("too late")
    server.close()
    os.unlink("socket")


asyncio.run(main())
