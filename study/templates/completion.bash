# bash completion of twophase; eval "$(twophase completion bash)"
_twophase_studies() {
    local root=runs i file
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --root ]] && root=${COMP_WORDS[i + 1]}
    done
    for file in "${root/#\~/$HOME}"/*/@MARKER@; do
        [[ -e $file ]] && file=${file%/*} && printf '%s\n' "${file##*/}"
    done
}

_twophase_words() {  # kind, the word so far
    case $1 in
        axis) compgen -W "@AXIS@" -- "$2" ;;
        folder) compgen -d -- "$2" ;;
        indicator) compgen -W "@INDICATOR@" -- "$2" ;;
        key) compgen -W "@KEY@" -- "$2" ;;
        preset) compgen -W "@PRESET@" -- "$2" ;;
        shell) compgen -W "@SHELL@" -- "$2" ;;
        space)
            compgen -W "@SPACE@" -- "$2"
            compgen -f -X '!*.y*ml' -- "$2"
            compgen -d -- "$2"
            ;;
        study)
            compgen -W "$(_twophase_studies)" -- "$2"
            compgen -d -- "$2"
            ;;
    esac
}

_twophase() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local command= kind=text options= i IFS=$'\n'
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case " @COMMANDS@ " in *" ${COMP_WORDS[i]} "*) command=${COMP_WORDS[i]}; break ;; esac
    done
    if [[ -z $command ]]; then
        COMPREPLY=($(IFS=' '; compgen -W "@COMMANDS@ --help --version" -- "$word"))
        return
    fi
    case $before in
@OPTION_KINDS@
        *) before= ;;
    esac
    if [[ -z $before && $word == -* ]]; then
        case $command in
@OPTIONS@
        esac
        COMPREPLY=($(IFS=' '; compgen -W "$options" -- "$word"))
        return
    fi
    if [[ -z $before ]]; then
        case $command in
@PLACE_KINDS@
        esac
    fi
    COMPREPLY=($(IFS=$' \n'; _twophase_words "$kind" "$word" | sort -u))
    [[ $kind == key ]] && compopt -o nospace 2>/dev/null
    [[ $kind =~ ^(folder|space|study)$ ]] && compopt -o filenames 2>/dev/null
    return 0
}

complete -F _twophase twophase
