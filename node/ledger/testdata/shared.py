"""Makes shared-pytoniq.json with pytoniq-core, from the inputs in shared-ton.json.

What @ton/ton has computed is not looked at; a Rust test holds our code to both files.
Run: pip install pytoniq-core==0.2.1 && python3 shared.py > shared-pytoniq.json
"""

import json
import pathlib

from nacl.signing import SigningKey
from pytoniq_core import Address, Builder, Cell, CurrencyCollection, ExternalMsgInfo, InternalMsgInfo, MessageAny, StateInit
from pytoniq_core.crypto.keys import mnemonic_is_valid, mnemonic_to_private_key

HERE = pathlib.Path(__file__).parent
CODES = HERE.parent / "src" / "wallet"
NETWORKS = {"mainnet": -239, "testnet": -3, "devnet": -7337}


def code(name):
    return Cell.one_from_boc((CODES / f"{name}-code.boc").read_bytes())


def wallet_number(network):
    # A client's context: workchain 0, version 0, subwallet 0 under the top bit, and the network's id over it.
    return (NETWORKS[network] & 0xFFFFFFFF) ^ 0x80000000


def v5r1(public, network):
    data = Builder().store_bit(1).store_uint(0, 32).store_uint(wallet_number(network), 32).store_bytes(public).store_bit(0).end_cell()
    return Address((0, StateInit(code=code("v5r1"), data=data).serialize().hash))


def v4r2(public, workchain):
    data = Builder().store_uint(0, 32).store_uint(698983191 + workchain, 32).store_bytes(public).store_bit(0).end_cell()
    return Address((workchain, StateInit(code=code("v4r2"), data=data).serialize().hash))


def forms(address):
    def form(bounceable, test_only):
        return address.to_str(is_user_friendly=True, is_url_safe=True, is_bounceable=bounceable, is_test_only=test_only)

    return {
        "raw": address.to_str(is_user_friendly=False),
        "bounceable": form(True, False),
        "non_bounceable": form(False, False),
        "test_bounceable": form(True, True),
        "test_non_bounceable": form(False, True),
    }


def comment(text):
    return Builder().store_uint(0, 32).store_snake_string(text).end_cell()


def internal(transfer):
    info = InternalMsgInfo(
        ihr_disabled=True, bounce=transfer["bounce"], bounced=False, src=None, dest=Address(transfer["to"]),
        value=CurrencyCollection(int(transfer["nano"]), None), ihr_fee=0, fwd_fee=0, created_lt=0, created_at=0,
    )
    body = comment(transfer["comment"]) if transfer["comment"] else Cell.empty()
    return MessageAny(info=info, init=None, body=body).serialize()


def external(case):
    key = SigningKey(bytes.fromhex(case["secret"]))
    wallet = v5r1(bytes(key.verify_key), case["network"])
    # `out_list` of one `action_send_msg`, with fees paid separately and errors ignored.
    actions = Builder().store_ref(Cell.empty()).store_uint(0x0EC3C86D, 32).store_uint(3, 8).store_ref(internal(case["transfer"])).end_cell()
    unsigned = (
        Builder().store_uint(0x7369676E, 32).store_uint(wallet_number(case["network"]), 32)
        .store_uint(case["valid_until"], 32).store_uint(case["seqno"], 32)
        .store_maybe_ref(actions).store_bit(0)
    )
    signature = key.sign(unsigned.end_cell().hash).signature
    body = unsigned.store_bytes(signature).end_cell()
    message = MessageAny(info=ExternalMsgInfo(src=None, dest=wallet, import_fee=0), init=None, body=body).serialize()
    return {"body_hash": body.hash.hex(), "message_hash": message.hash.hex()}


def voucher(case):
    provider = SigningKey(bytes.fromhex(case["provider_secret"]))
    cell = (
        Builder().store_uint(0x43435632, 32).store_address(Address(case["vault"])).store_bytes(bytes(provider.verify_key))
        .store_uint(case["epoch"], 32).store_uint(int(case["nano"]), 64).store_bytes(bytes.fromhex(case["root"])).end_cell()
    )
    payer = SigningKey(bytes.fromhex(case["payer_secret"]))
    return {"provider": bytes(provider.verify_key).hex(), "hash": cell.hash.hex(), "signature": payer.sign(cell.hash).signature.hex()}


def mnemonic(case):
    words = case["phrase"].split(" ")
    if not mnemonic_is_valid(words):
        return {"valid": False}
    public, secret = mnemonic_to_private_key(words)
    return {"valid": True, "secret": secret[:32].hex(), "public": public.hex()}


def address(case):
    public = bytes.fromhex(case["public"])
    return forms(v5r1(public, case["network"]) if case["version"] == "v5r1" else v4r2(public, case["workchain"]))


inputs = json.loads((HERE / "shared-ton.json").read_text())
print(json.dumps({
    "mnemonics": [mnemonic(case) for case in inputs["mnemonics"]],
    "addresses": [address(case) for case in inputs["addresses"]],
    "comments": [{"hash": comment(case["text"]).hash.hex()} for case in inputs["comments"]],
    "internals": [{"hash": internal(case).hash.hex()} for case in inputs["internals"]],
    "externals": [external(case) for case in inputs["externals"]],
    "vouchers": [voucher(case) for case in inputs["vouchers"]],
}, indent=1))
