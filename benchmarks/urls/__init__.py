"""URLs that want to be let in, in a network made for them: what a fetcher asks there is counted, not guessed.

The network is a namespace in which every address of the Internet is this process. Behind a handful of public ones
are web servers and a name server; a connection to any other address is a hit.

    addresses.py   what must not be reached
    spellings.py   how else it can be written, and what one parser reads otherwise than another
    catalogue.py   the URLs, in groups, with the names and the redirects they need
    names.py       a name server whose answers change
    servers.py     web servers that redirect wherever the URL says, and listeners that count
    network.py     the namespace
    clients.py     who is tried: the project's fetcher under each policy, and two clients to compare it with
    trial.py       runs inside the namespace, one client after the other
"""
