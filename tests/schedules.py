"""Ways in which the workers of a call may come by: in turn, backwards, or at once."""

import threading


def one_after_another(order):
    def share_out(serial, parallel, arguments, workers):
        for worker in order(workers):
            serial(*arguments, worker, workers)

    return share_out


def at_once(serial, parallel, arguments, workers):
    threads = [
        threading.Thread(target=serial, args=(*arguments, worker, workers))
        for worker in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


SCHEDULES = {
    "in order": one_after_another(range),
    "backwards": one_after_another(lambda workers: reversed(range(workers))),
    "at once": at_once,
}
