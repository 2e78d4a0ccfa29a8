_sau_scan_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _SAU_SCAN_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _sau_scan_completion sau-scan
