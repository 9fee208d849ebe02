package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"allotment/api"
	"allotment/qemu-tests/vm"
)

// deviceFlags say which box is meant.
type deviceFlags struct{ socket, port, machine string }

func newDevice() *cobra.Command {
	var f deviceFlags
	cmd := &cobra.Command{
		Use:   "device",
		Short: "Ask a running box how it is, and tell it what to do",
		Long: `Ask a running box how it is, and tell it what to do.

Without a flag it is the machine that allot run started last. A box elsewhere is reached by its API's socket, such as
  ssh -L box.sock:/run/allotment/api.sock HOST
or, on the host of a virtual machine, by the socket of its virtio port org.allotment.api.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.PersistentFlags()
	fl.StringVar(&f.socket, "socket", "", "unix socket of the box's API")
	fl.StringVar(&f.port, "port", "", "unix socket that leads to the machine's virtio port org.allotment.api")
	fl.StringVar(&f.machine, "vm", "", "name of a machine that allot run started (default: the newest)")
	cmd.MarkFlagsMutuallyExclusive("socket", "port", "vm")
	cmd.AddCommand(newHealth(&f), newModules(&f), newModuleSwitch(&f), newRestart(&f), newLogs(&f), newEvents(&f),
		newSettings(&f), newResources(&f), newUpdate(&f), newProvision(&f), newForward(&f), newExec(&f),
		newTask(&f, api.Journey, "Try what members do"),
		newTask(&f, api.Repair, "Try to mend a module"),
		newTask(&f, api.Migration, "Bring a volume to a newer format"),
		newBackup(&f), newExport(&f))
	return cmd
}

// client reaches the box that the flags name.
func (f *deviceFlags) client() (*api.Client, error) {
	switch {
	case f.socket != "":
		return api.Unix(f.socket), nil
	case f.port != "":
		return api.Port(f.port), nil
	}
	path, err := vm.Find(f.machine)
	if err != nil {
		return nil, err
	}
	return api.Unix(path), nil
}

// ask makes a command's RunE of what it asks the box.
func (f *deviceFlags) ask(do func(cmd *cobra.Command, c *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := f.client()
		if err != nil {
			return err
		}
		defer c.Close()
		err = do(cmd, c, args)
		if cmd.Context().Err() != nil && errors.Is(err, cmd.Context().Err()) {
			return cmd.Context().Err()
		}
		return err
	}
}

// serviceName takes MODULE.SERVICE apart; service is empty if only a module is named.
func serviceName(arg string) (module, service string) {
	module, service, _ = strings.Cut(arg, ".")
	return module, service
}

// printJSON prints v for programs to read.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table prints rows of columns that stand below each other.
func table(w io.Writer, rows func(row func(columns ...any))) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows(func(columns ...any) {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = printable(fmt.Sprint(c))
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	})
	return t.Flush()
}

// printable takes control characters out of a text that a module may have written: terminals obey some.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' && r != '\n' {
			return '?'
		}
		return r
	}, text)
}
