from threading import Thread

class Sender(Thread):
    def force_close(self) -> None: ...
