"""A token of a PKCS#11 module, made ready by the program itself, and the configuration that has all keys and the root in it."""

import subprocess

PIN, SO_PIN, LABEL = "interop-user-pin", "interop-officer-pin", "interop"


class Token:
    """A token of `module` in a directory of its own; keys of which nobody says where they are go there, in this bulk mode."""

    def __init__(self, binary, module, bulk_mode, directory, environment):
        directory.mkdir()
        self.config = directory / "keymill.toml"
        self.environment = environment | _find_tokens(directory)
        for name, pin in (("pin", PIN), ("so-pin", SO_PIN)):
            (directory / name).touch(mode=0o600)
            (directory / name).write_text(f"{pin}\n")
        subprocess.run(
            [binary, "hsm", "init", "--module", module, "--token", LABEL, "--pin-file", directory / "pin",
             "--so-pin-file", directory / "so-pin"],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, check=True,
        )
        self.config.write_text(
            f"""
[root]
kind = "pkcs11"

[keys]
protection_level = "HSM"
bulk_mode = "{bulk_mode}"

[[pool.token]]
name = "interop"
module = "{module}"
label = "{LABEL}"
pin_file = "{directory / 'pin'}"
sessions = 2
"""
        )


def _find_tokens(directory):
    """Returns the variables by which SoftHSM and Kryoptic find tokens in a directory; each reads its own alone."""
    tokens, softhsm, kryoptic = directory / "tokens", directory / "softhsm2.conf", directory / "kryoptic.conf"
    tokens.mkdir()
    softhsm.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    kryoptic.write_text(f'[[slots]]\nslot = 0\ndbtype = "sqlite"\ndbargs = "{directory / "token.sql"}"\n')
    return {"SOFTHSM2_CONF": str(softhsm), "KRYOPTIC_CONF": str(kryoptic)}
