#compdef twophase
# zsh completion of twophase; eval "$(twophase completion zsh)", after compinit
_twophase_axis() { local -a known=(@AXIS@); compadd -a known }
_twophase_folder() { _files -/ }
_twophase_indicator() { local -a known=(@INDICATOR@); compadd -a known }
_twophase_key() { local -a known=(@KEY@); compadd -S '' -a known }
_twophase_preset() { local -a known=(@PRESET@); compadd -a known }
_twophase_shell() { local -a known=(@SHELL@); compadd -a known }
_twophase_space() { local -a known=(@SPACE@); compadd -a known; _files -g '*.(yaml|yml)' }

_twophase_study() {
    local root=${words[${words[(i)--root]} + 1]:-runs}
    local -a known=(${~root}/*/@MARKER@(N:h:t))
    compadd -a known
    _files -/
}

_twophase() {
    local state line
    local -a commands=(
@DESCRIBED@
    )
    _arguments -C '--help[tell of a command]' '--version[tell the version]' '1:command:->command' '*::argument:->rest'
    case $state in
        command) _describe command commands ;;
        rest)
            case $words[1] in
@SPECS@
            esac
            ;;
    esac
}

if [[ $funcstack[1] == _twophase ]]; then
    _twophase "$@"
else
    compdef _twophase twophase
fi
