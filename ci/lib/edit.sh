# shellcheck shell=bash
# Changes to configurations that were made from a template. An anchor that the template does not hold any more ends the
# run: what was to be tried would not be tried.

# line_after FILE ANCHOR LINES — behind the first line that matches ANCHOR; \n in LINES begins another line.
line_after() {
    # shellcheck disable=SC2016  # awk's own
    edit "$1" "$2" -v anchor="$2" -v lines="$3" '{ print } !found && $0 ~ anchor { print lines; found = 1 }'
}

# line_in FILE SECTION ANCHOR LINES — instead of the first line that matches ANCHOR behind the one that matches SECTION.
line_in() {
    # shellcheck disable=SC2016  # awk's own
    edit "$1" "$3 in $2" -v section="$2" -v anchor="$3" -v lines="$4" '
        $0 ~ section { inside = 1 }
        inside && !found && $0 ~ anchor { print lines; found = 1; next }
        { print }'
}

# edit FILE WHAT AWK… — the program says by `found` whether it has done its work. The file keeps its owner and mode.
edit() {
    local file=$1 what=$2 arguments=("${@:3}")
    arguments[-1]+=' END { exit !found }'
    awk "${arguments[@]}" "$file" >"$file.edited" || die "$file has no line that matches: $what"
    cat "$file.edited" >"$file"
    rm "$file.edited"
}
