import asyncio, httpx, pytest


async def test_float(client, new_wallet):
    for v in (1e20, 1e308, 1e16, 5e-324, -1e19):
        w = await new_wallet(metadata={"x": v})
        try:
            r = await client.get(f"/wallets/{w['id']}")
            print(v, r.status_code, r.text[:300])
        except Exception as e:
            print(v, repr(e)[:200])


@pytest.mark.parametrize("u", ["a?b", "李", "a/b", 'a"b>c', "a%2Fb", "a#b", "ü", "..", "a;b"])
async def test_user(client, new_wallet, u):
    from urllib.parse import quote

    w1 = await new_wallet(u)
    await new_wallet(u)
    try:
        r = await client.get(f"/users/{quote(u, safe='')}/wallets?limit=1")
        print(u, r.status_code, r.text[:300], r.headers)
        r = await client.get(f"/users/{quote(u, safe='')}/wallets?limit=x")
        print(u, r.status_code, r.text[:300])
    except Exception as e:
        print(u, repr(e)[:200])


async def test_pool(open_client, client, new_wallet, sql):
    w = await new_wallet()
    await sql("begin")
    await sql("select 1 from wallet.wallets for update")
    async with open_client(database_pool_size=1, pool_timeout_seconds=0.1) as c:
        rs = await asyncio.gather(
            *[c.post(f"/wallets/{w['id']}/fund", json={"amount": "1"}) for _ in range(3)], return_exceptions=True
        )
        for r in rs:
            print(r if isinstance(r, Exception) else r.text)
    async with open_client(statement_timeout_seconds=0.2) as c:
        rs = await asyncio.gather(
            *[c.post(f"/wallets/{w['id']}/fund", json={"amount": "1"}) for _ in range(1)], return_exceptions=True
        )
        for r in rs:
            print(repr(r) if isinstance(r, Exception) else r.text)
    await sql("rollback")


async def test_deep(client):
    for d in (100, 190, 196, 197, 198, 199, 200, 250, 300, 1000, 30000):
        m = '{"a":' * d + "1" + "}" * d
        try:
            r = await client.post(
                "/wallets",
                content='{"user_id":"a","currency":"EUR","metadata":%s}' % m,
                headers={"content-type": "application/json", "idempotency-key": str(d)},
            )
            print(d, r.status_code, r.text[:100])
            if r.status_code == 201:
                print((await client.get(r.headers["location"])).status_code)
        except Exception as e:
            print(d, repr(e)[:200])


def test_cursor():
    from common.pagination import decode_cursor, encode_cursor
    import base64
    from uuid import UUID

    for t in (
        b"[1e400]",
        b"[1e300]",
        b"[1.5]",
        b"[true]",
        b'["5"]',
        b"[" * 5000,
        b'["' + b"9" * 5000 + b'"]',
        b"[[]]",
        b"[{}]",
        b"[null]",
        b'["  5 "]',
        b'["\\ud800"]',
    ):
        for k in (int, UUID):
            try:
                print(t[:20], k, decode_cursor(base64.urlsafe_b64encode(t).decode(), [k]))
            except Exception as e:
                print(t[:20], k, repr(e)[:150])
