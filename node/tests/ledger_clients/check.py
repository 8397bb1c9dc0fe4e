"""Uses a devnet through liteserver clients that were not written here, as any wallet would.

pytoniq's LiteClient checks block, shard and account proofs itself (trust level 1); tonutils sends through a client of its own.
Run: pip install pytoniq==0.1.43 tonutils==2.5.1, then: python check.py http://HOST:PORT HOST:PORT KEY
where the first is the devnet's HTTP interface (for its faucet), the second its liteserver, and KEY that one's key in base64.
"""

import asyncio
import json
import os
import sys
import time
import urllib.request

from pytoniq import LiteClient, WalletV4R2
from pytoniq_core import Address

GLOBAL_ID = -7337
TON = 10**9


def faucet(url, address, amount):
    body = json.dumps({"address": address, "amount": str(amount)}).encode()
    request = urllib.request.Request(url + "/devnet/faucet", body, {"content-type": "application/json"})
    assert urllib.request.urlopen(request).status == 200


async def with_pytoniq(url, host, port, key):
    client = LiteClient(host, port, key, trust_level=1)
    await client.connect()
    assert abs((await client.get_time())["now"] - time.time()) < 60
    assert (await client.get_version())["version"] == 0x101
    _, wallet = await WalletV4R2.create(client, wallet_id=0x29A9A317)
    nobody = Address("0:" + os.urandom(32).hex())

    # Nothing there yet.
    assert (await client.get_account_state(nobody)).balance == 0
    await asyncio.to_thread(faucet, url, wallet.address.to_str(is_user_friendly=False), 10 * TON)
    info = await client.get_masterchain_info_ext()
    assert info["last"]["seqno"] >= 1
    await client.update_last_blocks()

    # The balance, with proofs from the masterchain block down to the account, checked by pytoniq.
    account = await client.get_account_state(wallet.address)
    assert account.balance == 10 * TON, account.balance
    assert account.is_uninitialized()

    # A transfer; the wallet is deployed by its first message.
    await wallet.deploy_via_external()
    await client.update_last_blocks()
    await wallet.transfer(destination=nobody, amount=2 * TON)
    await client.update_last_blocks()
    assert (await client.get_account_state(nobody)).balance == 2 * TON
    account = await client.get_account_state(wallet.address)
    assert account.is_active()

    # A get method.
    assert await client.run_get_method(wallet.address, "seqno", []) == [2]
    key_on_chain = (await client.run_get_method(wallet.address, "get_public_key", []))[0]
    assert key_on_chain == int.from_bytes(wallet.public_key, "big")

    # The history: pytoniq follows the chain of hashes from the proved last transaction.
    history = await client.get_transactions(wallet.address, count=20)
    assert len(history) == 3, history
    assert [transaction.lt for transaction in history] == sorted((t.lt for t in history), reverse=True)
    _, blocks = await client.raw_get_transactions(wallet.address, 16)

    # Blocks: found by number, time and logical time, whole and as headers, both proved.
    seqno = client.last_mc_block.seqno
    found, header = await client.lookup_block(-1, -(2**63), seqno=seqno)
    assert (found, header.info.seqno) == (client.last_mc_block, seqno)
    by_lt, header = await client.lookup_block(0, -(2**63), lt=history[0].lt)
    assert by_lt == blocks[0]
    assert header.info.start_lt < history[0].lt <= header.info.end_lt
    block = await client.raw_get_block(by_lt)
    assert int.from_bytes(wallet.address.hash_part, "big") in block.extra.account_blocks[0]
    listed = await client.get_all_shards_info()
    assert [shard.workchain for shard in listed] == [0]
    await client.raw_get_shard_info()

    # The parameters, proved.
    config = await client.get_config_params([19, 21])
    assert set(config) == {19, 21}
    assert len(await client.get_config_all()) > 10

    # The chain goes on without anything happening.
    waited = await client.wait_masterchain_seqno(seqno + 1, 10_000, "getMasterchainInfo")
    assert waited["last"]["seqno"] > seqno

    # A message that the contract does not take is refused with the exit code.
    try:
        await wallet.raw_transfer([], seqno_from_get_meth=False)
        refused = ""
    except Exception as error:  # pytoniq's own type
        refused = str(error)
    assert "exitcode=" in refused, refused
    await client.close()
    return wallet.address


async def with_tonutils(url, host, port, key):
    from tonutils.clients import LiteClient as Client
    from tonutils.contracts import WalletV5R1
    from ton_core import NetworkGlobalID

    client = Client(NetworkGlobalID.TESTNET, ip=host, port=port, public_key=key)
    await client.connect()
    wallet, *_ = WalletV5R1.create(client)
    faucet(url, wallet.address.to_str(is_user_friendly=False), 5 * TON)
    await wallet.transfer(destination=Address("0:" + "88" * 32), amount=TON)
    # tonutils reads at the newest block that it knows, which is a moment behind.
    for _ in range(100):
        await wallet.refresh()
        if 0 < wallet.balance < 5 * TON:
            break
        await asyncio.sleep(0.1)
    assert 3 * TON < wallet.balance < 4 * TON, wallet.balance
    assert await wallet.seqno() == 1
    await client.close()


async def main():
    url, address, key = sys.argv[1:]
    host, port = address.rsplit(":", 1)
    await with_pytoniq(url, host, int(port), key)
    print("pytoniq agrees")
    await with_tonutils(url, host, int(port), key)
    print("tonutils agrees")


asyncio.run(main())
