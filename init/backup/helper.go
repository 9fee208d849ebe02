package backup

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"allotment/init/confine"
)

// First arguments of the supervisor's program by which it is not the supervisor.
const (
	ResticArgument = "backup-restic" // become restic, which is the next argument, with no more than it needs
	SSHArgument    = "backup-ssh"    // connect standard input and output with an SFTP server
)

// Helper does what the arguments say if they are those of this package. It returns only if they are not, or with an error.
func Helper(args []string, root, run string) (mine bool, err error) {
	switch {
	case len(args) > 1 && args[0] == ResticArgument:
		return true, confine.Exec(args[1], args[2:], os.Environ(), confine.Paths{
			Read: []string{"/usr", "/lib", "/lib64", "/etc", "/proc", run + "/resolv.conf", root + "/snapshots",
				root + "/backup/" + authorityFile},
			Write: []string{"/dev/null", root + "/backup/cache", root + "/backup/scratch", root + "/snapshots/restored", diskFolder(run)},
		})
	case len(args) > 0 && args[0] == SSHArgument:
		return true, speakSFTP(os.Getenv, os.Stdin, os.Stdout)
	}
	return false, nil
}

// diskFolder is where a USB disk is mounted.
func diskFolder(run string) string { return run + "/backup-disk" }

const sshTime = 30 * time.Second

// speakSFTP connects in and out with the SFTP server that the environment names.
func speakSFTP(getenv func(string) string, in io.Reader, out io.Writer) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(getenv("ALLOTMENT_SSH_HOSTKEY")))
	if err != nil {
		return fmt.Errorf("cannot understand the server's key: %w", err)
	}
	c, err := ssh.Dial("tcp", getenv("ALLOTMENT_SSH_ADDRESS"), &ssh.ClientConfig{
		User: getenv("ALLOTMENT_SSH_USER"), Timeout: sshTime, HostKeyCallback: ssh.FixedHostKey(key),
		HostKeyAlgorithms: algorithms(key), Auth: passwords(getenv("ALLOTMENT_SSH_PASSWORD")),
	})
	if err != nil {
		return err
	}
	defer c.Close()
	session, err := c.NewSession()
	if err != nil {
		return err
	}
	to, err := session.StdinPipe()
	if err != nil {
		return err
	}
	from, err := session.StdoutPipe()
	if err != nil {
		return err
	}
	if err := session.RequestSubsystem("sftp"); err != nil {
		return fmt.Errorf("the server gives no files: %w", err)
	}
	go func() {
		_, _ = io.Copy(to, in)
		to.Close()
	}()
	_, err = io.Copy(out, from)
	return err
}

// passwords gives the password in both ways in which servers ask for it.
func passwords(password string) []ssh.AuthMethod {
	return []ssh.AuthMethod{ssh.Password(password), ssh.KeyboardInteractive(
		func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				answers[i] = password
			}
			return answers, nil
		})}
}

// algorithms are those by which a server proves that it has the key.
func algorithms(key ssh.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}

// hostKey asks a server for its key, and neither trusts nor uses it: from the first time on it must be the same.
func hostKey(address string) (string, error) {
	host, port := splitPort(address)
	errSeen := errors.New("seen")
	var seen ssh.PublicKey
	_, err := ssh.Dial("tcp", net.JoinHostPort(host, port), &ssh.ClientConfig{
		User: "allotment", Timeout: sshTime,
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			seen = key
			return errSeen
		},
	})
	if seen == nil {
		return "", fmt.Errorf("cannot reach the server: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(seen))), nil
}
