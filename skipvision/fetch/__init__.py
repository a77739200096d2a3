"""URLs in, bytes out, safely: the one fetcher for jobs and service.

Whoever writes the URLs is not trusted, and neither is the server that answers. Names are resolved once, every
answer is judged by `AddressRules`, and the connection goes to the judged number itself, so a name cannot change its
meaning in between. Redirects are followed by hand under the same rules. Bytes, time, redirects, retries and
connections are all bounded; cookies, proxies and credentials of the environment are never used. No message repeats
a URL: many are signed, and then they are secrets.

    policy.py      FetchPolicy: what may be fetched, and what it may cost
    addresses.py   AddressRules: which hosts and numbers are open
    client.py      AsyncFetcher: fetches in the caller's event loop
    blocking.py    Fetcher: the same for everybody else
    flights.py     the same URL, wanted twice at once, is fetched once
    hosts.py       turns at each host, and which hosts have stopped answering
    failures.py    what an answer or a failure means, and whether to try again
    data_urls.py   pictures inside the URL itself
"""

from skipvision.fetch.addresses import is_address
from skipvision.fetch.blocking import Fetcher
from skipvision.fetch.client import AsyncFetcher
from skipvision.fetch.data_urls import decode_data_url
from skipvision.fetch.policy import FetchPolicy

__all__ = ["AsyncFetcher", "FetchPolicy", "Fetcher", "decode_data_url", "is_address"]
