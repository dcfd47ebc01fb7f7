import asyncio, httpx, pytest
from common.database import create_engine
from wallet_api.transactions import execute
from wallet_api.use_cases import fund
from wallet_api.commands import Fund
from uuid import UUID
async def test_same_object(engine, new_wallet):
    w = await new_wallet()
    c = Fund(path="/x", claim=None, traceparent=None, metadata={}, wallet_id=UUID(w["id"]), amount="1", currency=None, reference=None, if_match=None)
    print(await execute(engine, fund, [c] * 3))
async def test_ddl(client, new_wallet, sql):
    w = await new_wallet(balance="3")
    for p in ("", "/transactions", "U"):
        u = f"/wallets/{w['id']}{p}" if p != "U" else "/users/ada/wallets"
        print((await client.get(u)).status_code)
    await sql("alter table wallet.wallets add column foo text")
    await sql("alter table wallet.wallet_transactions add column foo text")
    for p in ("", "/transactions", "U"):
        u = f"/wallets/{w['id']}{p}" if p != "U" else "/users/ada/wallets"
        try: print((await client.get(u)).status_code)
        except Exception as e: print(repr(e)[:100])
    print((await client.post(f"/wallets/{w['id']}/fund", json={"amount":"1"})).text)
async def test_etags(client, new_wallet):
    w = await new_wallet()
    u = f"/wallets/{w['id']}"
    for h in ('"1"', 'W/"1"', '"2", "1"', '*', '"01"'):
        print(h, (await client.get(u, headers={"If-None-Match": h})).status_code, (await client.post(u+"/transfer", json={"amount":"1","to_wallet_id": u[9:]}, headers={"If-Match": h})).status_code)
async def test_misc(client):
    r = await client.get("/openapi.json"); d = r.json()
    import json
    for p, x in d["paths"].items():
        for m, o in x.items(): print(p, m, {k: list(v.get("content", {})) for k, v in o["responses"].items()}, json.dumps(o.get("requestBody"))[:300])
    print(list(d["components"]["schemas"]))
    for m, p in (("HEAD", "/wallets"), ("POST", "/live"), ("GET", "/wallets/"), ("GET", "/"), ("OPTIONS", "/wallets"), ("GET", "/docs")):
        r = await client.request(m, p); print(m, p, r.status_code, r.headers, r.text[:100])
    for p in ("/live", "/ready", "/metrics"):
        r = await client.get(p); print(r.status_code, r.headers, r.text[:200])
async def test_down(open_client):
    async with open_client(database_url="postgresql://u@127.0.0.1:1/x") as c:
        for m, p in (("GET", "/ready"), ("GET", "/users/a/wallets")):
            r = await c.request(m, p); print(r.status_code, r.text, r.headers)
