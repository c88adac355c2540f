"""The labelling page and its REST API, over the label store. Without torch.

    app        build_app: routes, pages and shields as one ASGI application
    serve      where it listens, the way in for the first visitor, and the server
    site       what all requests share; who a request is from, and what it may do
    shield     what stands before every route: hosts, origins, sizes, rates, headers
    problems   every refusal as one JSON shape (RFC 9457)
    work       routes of people who label: leases, drafts, answers, skips, undo, their own progress
    entry      routes in and out: one-time code, login, invitation, logout
    service    routes of machines and researchers: items, changes, budget, tokens
    pages      the pages; templates/ and static/ are their files
    quality    what the page of a project's quality shows, from heed.stats
    showing    texts of strangers as safe HTML
    limits     token buckets

Needs the extra `web`.
"""
