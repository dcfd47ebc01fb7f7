from support.command_lines import walletctl
from support.pipelines import apart, fresh, ran, settings

__all__ = ["apart", "fresh", "ran", "settings", "walletctl"]
