# fish completion of twophase; twophase completion fish > ~/.config/fish/completions/twophase.fish
function __twophase_axis; string split ' ' '@AXIS@'; end
function __twophase_folder; __fish_complete_directories; end
function __twophase_indicator; string split ' ' '@INDICATOR@'; end
function __twophase_key; string split ' ' '@KEY@'; end
function __twophase_preset; string split ' ' '@PRESET@'; end
function __twophase_shell; string split ' ' '@SHELL@'; end
function __twophase_space; string split ' ' '@SPACE@'; __fish_complete_suffix .yaml; end

function __twophase_study
    set -l words (commandline -opc)
    set -l root runs
    set -l at (contains -i -- --root $words); and set root $words[(math $at + 1)]
    for file in $root/*/@MARKER@
        path basename (path dirname $file)
    end
end

complete -c twophase -f
complete -c twophase -n __fish_use_subcommand -l help -d 'tell of all commands'
complete -c twophase -n __fish_use_subcommand -l version -d 'tell the version'
@LINES@
