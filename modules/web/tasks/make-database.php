<?php
// Makes MariaDB's own tables in an empty folder, as mariadb-install-db does, but without a shell, test database, help
// texts, and accounts: those come from accounts.sql at each start.

declare(strict_types=1);

$share = '/usr/share/mariadb';
$sql = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
    . file_get_contents("$share/mariadb_system_tables.sql")
    . file_get_contents("$share/mariadb_system_tables_data.sql")
    . "\nDELETE FROM mysql.global_priv;\nDELETE FROM mysql.proxies_priv;\n";

$server = proc_open(
    ['/usr/sbin/mariadbd', '--bootstrap', '--skip-networking'],
    [0 => ['pipe', 'r'], 1 => STDERR, 2 => STDERR],
    $pipes,
);
if ($server === false) {
    fwrite(STDERR, "cannot start MariaDB\n");
    exit(1);
}
fwrite($pipes[0], $sql);
fclose($pipes[0]);
exit(proc_close($server));
